//! What goes wrong before there is a session.
//!
//! `Display` says what this layer knows; [`source`](std::error::Error::source) is what the server or the system said.
//! Connection strings and passwords never enter an error.

use std::{error::Error as StdError, fmt};

/// The result of reading settings, and of connecting.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What lies beneath an error.
pub type Source = Box<dyn StdError + Send + Sync>;

/// Why there are no settings, or no connection.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Source>,
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A connection string, variable, file or key of them is unusable, or a server asks for what they do not have.
    Config,
    /// No usable server could be reached.
    Connect,
    /// A server refused the user or the session; [`Error::sqlstate`] has its code.
    Database,
    /// The system failed.
    Io,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub(crate) fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts what was being done in front of the message.
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The server's error code, where a server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        let source = self.0.source.as_ref()?.downcast_ref::<tokio_postgres::Error>()?;
        source.code().map(tokio_postgres::error::SqlState::code)
    }

    /// The kind, the message, and what lies beneath it, for errors of who stands on this.
    pub fn into_parts(self) -> (ErrorKind, String, Option<Source>) {
        (self.0.kind, self.0.message, self.0.source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

/// Without what lies beneath: why a host refused is in the message, and the driver's own words quote more than that.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
