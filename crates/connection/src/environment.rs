//! What surrounds the process: environment variables, the home directory, the login name.
//!
//! Everything that completes a connection string asks here, so that tests can bring their own surroundings instead
//! of changing the process's.

use std::{collections::HashMap, ffi::OsString, path::PathBuf};

use crate::error::{Error, Result};

/// Where missing connection settings are looked up.
pub trait Environment {
    /// The raw value of an environment variable.
    fn raw(&self, name: &str) -> Option<OsString>;

    /// The home directory, under which libpq's own files live.
    fn home(&self) -> Option<PathBuf>;

    /// The name of the operating system's user.
    fn login(&self) -> Option<String>;

    /// An environment variable as text. One that is not text is refused rather than skipped: it may be the one that
    /// asks for encryption.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for one that is not UTF-8.
    fn variable(&self, name: &str) -> Result<Option<String>> {
        match self.raw(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(Error::config(format!("environment variable {name} is not valid UTF-8"))),
        }
    }
}

/// The surroundings of this process.
#[derive(Clone, Copy, Debug)]
pub struct Process;

impl Environment for Process {
    fn raw(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn home(&self) -> Option<PathBuf> {
        std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
    }

    fn login(&self) -> Option<String> {
        whoami::username().ok()
    }
}

/// Surroundings that are given instead, for tests: by default nothing is set, the user is `me`, and there is no home.
#[derive(Clone, Debug, Default)]
pub struct Given {
    variables: HashMap<String, OsString>,
    home: Option<PathBuf>,
}

impl Given {
    /// Sets a variable.
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Says where the home directory is.
    pub fn home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }
}

impl Environment for Given {
    fn raw(&self, name: &str) -> Option<OsString> {
        self.variables.get(name).cloned()
    }

    fn home(&self) -> Option<PathBuf> {
        self.home.clone()
    }

    fn login(&self) -> Option<String> {
        Some("me".into())
    }
}
