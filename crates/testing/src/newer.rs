//! A PostgreSQL that is newer than the one the tests must do with.

use std::path::PathBuf;

use doorbell_server::{FetchOptions, Installation};

/// A file with the archive that `doorbell-server` pins; `.ci/run` gets it.
const ARCHIVE: &str = "DOORBELL_TEST_PG_ARCHIVE";

/// The programs of a PostgreSQL 17 or newer, for a server of one's own: those installed, or the archive's. Nothing where there is
/// neither, which is said.
pub async fn postgres_17() -> Option<PathBuf> {
    let is_new = |found: &Installation| {
        let major = found.version().split('.').next().and_then(|major| major.parse::<u32>().ok());
        major.is_some_and(|major| major >= 17)
    };
    if let Some(found) = Installation::find(None).ok().filter(is_new) {
        return Some(found.bin_directory().to_owned());
    }
    let Some(archive) = std::env::var_os(ARCHIVE).filter(|named| !named.is_empty()).map(PathBuf::from) else {
        println!("skipped: PostgreSQL 17 or newer is not installed, and {ARCHIVE} names no archive of one");
        return None;
    };
    // Not where other tests look for installed ones: they would change their server in the middle of a run.
    let cache_directory = Some(std::env::temp_dir().join("doorbell-test-postgres"));
    match Installation::fetch(&FetchOptions { cache_directory, archive: Some(archive) }).await {
        Ok(fetched) => Some(fetched.bin_directory().to_owned()),
        Err(error) => {
            println!("skipped: {error}, {:?}", std::error::Error::source(&error).map(ToString::to_string));
            None
        }
    }
}
