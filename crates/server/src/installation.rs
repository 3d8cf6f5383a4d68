//! Finding the programs of a PostgreSQL server on this machine.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::cache;
use crate::error::{Error, ErrorKind, Result};

/// The oldest major version of PostgreSQL that is used.
pub const MAJOR_MIN: u32 = 15;

/// Names the directory with `initdb` and `postgres`; whatever else is installed is then not looked at.
const BIN_DIRECTORY_VARIABLE: &str = "DOORBELL_PG_BINDIR";

/// A directory with the programs of one PostgreSQL version.
#[derive(Clone, Debug)]
pub struct Installation {
    bin_directory: PathBuf,
    version: Version,
}

impl Installation {
    /// Finds an installed PostgreSQL.
    ///
    /// `bin_directory`, or else the environment's `DOORBELL_PG_BINDIR`, decides alone when given. Otherwise the highest
    /// version is taken of: `postgres` on `PATH`, what `pg_config` names, and the usual places of Debian, Red Hat,
    /// Homebrew, Postgres.app and MacPorts; and what was [fetched](Self::fetch) earlier.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when the directory given holds no usable server,
    /// [`NotFound`](ErrorKind::NotFound) when none is installed that is new enough; the message says how to get one.
    pub fn find(bin_directory: Option<&Path>) -> Result<Self> {
        let newest = |installed: Vec<Self>| installed.into_iter().max_by_key(|i| i.version.clone());
        Self::choose(bin_directory, newest)
    }

    /// Finds the programs for existing data, if possible of the major version that made it.
    pub(super) fn find_for_data(bin_directory: Option<&Path>, major: Option<u32>) -> Result<Self> {
        let nearest =
            |installed: Vec<Self>| installed.into_iter().max_by_key(|i| (Some(i.major()) == major, i.version.clone()));
        Self::choose(bin_directory, nearest)
    }

    /// Refuses data that these programs cannot read.
    pub(super) fn check_reads(&self, major: u32) -> Result<()> {
        if self.major() == major {
            return Ok(());
        }
        let message = format!(
            "the data was made by PostgreSQL {major}, but what was found is {self}; install PostgreSQL {major}, \
             or name its programs' directory in {BIN_DIRECTORY_VARIABLE}, or move the data away to begin anew"
        );
        Err(Error::config(message))
    }

    fn choose(bin_directory: Option<&Path>, best: impl FnOnce(Vec<Self>) -> Option<Self>) -> Result<Self> {
        let account = Account::current()?;
        let from_environment = std::env::var_os(BIN_DIRECTORY_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(given) = bin_directory.map(Path::to_owned).or(from_environment) {
            return Self::given(&account, &given);
        }
        match best(candidates(&account).iter().filter_map(|directory| Self::at(&account, directory)).collect()) {
            Some(installation) if installation.major() >= MAJOR_MIN => Ok(installation),
            Some(old) => Err(missing(format!("the newest PostgreSQL found, {old}, is older than {MAJOR_MIN}"))),
            None => Err(missing("no PostgreSQL server is installed".to_owned())),
        }
    }

    /// The directory of the programs.
    pub fn bin_directory(&self) -> &Path {
        &self.bin_directory
    }

    /// The full version, such as `17.5`.
    pub fn version(&self) -> &str {
        &self.version.text
    }

    /// The major version, such as 17: data of one major version cannot be read by another.
    pub fn major(&self) -> u32 {
        self.version.numbers[0]
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin_directory.join(name)
    }

    fn given(account: &Account, directory: &Path) -> Result<Self> {
        let unusable = |why: String| Error::config(format!("cannot use the server in {}: {why}", directory.display()));
        let installation = Self::at(account, directory).ok_or_else(|| {
            unusable("it needs the programs `initdb` and `postgres`, and they must run here".to_owned())
        })?;
        if installation.major() < MAJOR_MIN {
            return Err(unusable(format!("PostgreSQL {} is older than {MAJOR_MIN}", installation.version())));
        }
        Ok(installation)
    }

    /// The installation in this directory, if both programs are there and the server can say its version to the account that
    /// it is to run as.
    pub(super) fn at(account: &Account, directory: &Path) -> Option<Self> {
        if !directory.join("initdb").is_file() {
            return None;
        }
        let bin_directory = directory.canonicalize().ok()?;
        let said = output(account, bin_directory.join("postgres"), "--version")?;
        Some(Self { version: Version::parse(&said)?, bin_directory })
    }
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {} in {}", self.version.text, self.bin_directory.display())
    }
}

/// How a server can be had where none is: the one line for the platform, and the variable.
fn missing(why: String) -> Error {
    let install = if cfg!(target_os = "macos") {
        "brew install postgresql@18"
    } else if Path::new("/usr/bin/dnf").exists() {
        "dnf install -y postgresql-server"
    } else {
        "apt-get install -y postgresql"
    };
    let message =
        format!("{why}; install one with `{install}`, or name its programs' directory in {BIN_DIRECTORY_VARIABLE}");
    Error::new(ErrorKind::NotFound, message)
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    /// Major and minor; a pre-release counts as minor 0.
    numbers: [u32; 2],
    text: String,
}

impl Version {
    /// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` or `postgres (PostgreSQL) 19beta1`.
    fn parse(said: &str) -> Option<Self> {
        let text = said.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?.to_owned();
        let digits = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok());
        let mut parts = text.split('.');
        let numbers = [digits(parts.next()?)?, parts.next().and_then(digits).unwrap_or(0)];
        Some(Self { numbers, text })
    }
}

/// The directories that may hold a server, without duplicates.
fn candidates(account: &Account) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let path = std::env::var_os("PATH").unwrap_or_default();
    for directory in std::env::split_paths(&path) {
        // A link on PATH (Debian, Homebrew) leads to where the other programs are.
        if let Ok(postgres) = directory.join("postgres").canonicalize()
            && let Some(directory) = postgres.parent()
        {
            found.insert(directory.to_owned());
        }
    }
    found.extend(output(account, "pg_config", "--bindir").map(|said| PathBuf::from(said.trim())));
    for (parent, prefix, below) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
        ("/opt/local/lib", "postgresql", "bin"),
    ] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        found.extend(named.map(|entry| entry.path().join(below)));
    }
    if let Some(cache) = cache::cache_directory() {
        let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path().join(cache::BIN_BELOW)));
    }
    found
}

/// What a program prints when asked; nothing when it cannot run or fails. Root does not ask by itself: what lies in PATH or
/// where somebody has installed a server may be anybody's.
fn output(account: &Account, program: impl AsRef<Path>, argument: &str) -> Option<String> {
    let output = account.command(program).arg(argument).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_builds_print_them_and_compare_by_number() {
        let parse = |said: &str| Version::parse(said).unwrap();
        let debian = parse("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n");
        assert_eq!((debian.numbers, debian.text.as_str()), ([15, 18], "15.18"));
        assert_eq!(parse("postgres (PostgreSQL) 19beta1").numbers, [19, 0]);
        assert!(parse("postgres (PostgreSQL) 9.6.24") < debian);
        assert_eq!(Version::parse("psql 15"), None);
    }

    #[test]
    fn a_directory_without_a_server_is_refused_by_name() {
        let error = Installation::find(Some(Path::new("/nonexistent/bin"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("/nonexistent/bin"), "{error}");
    }
}
