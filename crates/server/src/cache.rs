//! Where fetched programs are kept.

use std::fs::{Permissions, create_dir_all, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::error::{Error, ErrorKind, Result};

/// The directory of fetched programs; nothing when the user has no home.
pub(super) fn cache_directory() -> Option<PathBuf> {
    if geteuid().is_root() {
        return Some(PathBuf::from("/var/cache/doorbell"));
    }
    let cache = path_from("XDG_CACHE_HOME").or_else(|| path_from("HOME").map(|home| home.join(".cache")));
    cache.filter(|path| path.is_absolute()).map(|path| path.join("doorbell"))
}

/// Where the programs are in an unpacked archive.
pub(super) const BIN_BELOW: &str = "native/bin";

/// Makes a directory that the server's account can read whatever the caller's umask.
pub(super) fn make_readable(directory: &Path) -> Result<()> {
    create_dir_all(directory)
        .and_then(|()| set_permissions(directory, Permissions::from_mode(0o755)))
        .map_err(|e| Error::new(ErrorKind::Io, format!("cannot create {}", directory.display())).with_source(e))
}

/// The path that a variable of the environment has, if it has one.
pub(super) fn path_from(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
