//! Why a host could not be used, in words that are safe to show.

use std::{
    error::Error as _,
    fmt::{self, Write as _},
    io,
};

use super::{authentication::Refusal, host::Host};
use crate::error::{Error, ErrorKind};

/// Why one way to a host did not work.
#[derive(Debug)]
pub(super) struct Failure {
    reason: String,
    kind: ErrorKind,
    /// It was the handshake, or its absence.
    handshake: bool,
    /// What the server said, where it said something; the reason tells all the rest.
    source: Option<tokio_postgres::Error>,
}

impl Failure {
    /// The host cannot be reached or used now.
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), kind: ErrorKind::Connect, handshake: false, source: None }
    }

    /// The system or the TLS library said why.
    pub(super) fn io(doing: &str, error: &io::Error) -> Self {
        Self::new(format!("{doing}: {error}"))
    }

    /// The login did not succeed.
    pub(super) fn login(error: tokio_postgres::Error) -> Self {
        if let Some(refusal) = error.as_db_error() {
            let code = refusal.code().code();
            let kind = if code.starts_with("57P") { ErrorKind::Connect } else { ErrorKind::Database };
            let reason = format!("{} (SQLSTATE {code})", refusal.message());
            return Self { reason, kind, handshake: false, source: Some(error) };
        }
        if let Some(refusal) = Refusal::of(&error) {
            let reason = refusal.to_string();
            return Self { reason, kind: ErrorKind::Config, handshake: refusal.for_want_of_tls, source: None };
        }
        let lost = error.is_closed() || error.source().is_some_and(|source| source.is::<io::Error>());
        // The rest is between the settings and the server: no password, no common method.
        let kind = if lost { ErrorKind::Connect } else { ErrorKind::Config };
        Self { reason: chain(&error), kind, handshake: false, source: None }
    }

    /// The TLS handshake did not succeed.
    pub(super) fn handshake(error: io::Error) -> Self {
        Self { handshake: true, ..Self::io("TLS handshake", &error) }
    }

    /// Whether trying with the other answer to the question of TLS makes sense: the handshake failed, or the server has
    /// no rule for this kind of connection (28000). A wrong password (28P01) does not get better.
    pub(super) fn is_about_encryption(&self) -> bool {
        self.handshake || self.sqlstate() == Some("28000")
    }

    /// Whether the search ends here: the server does not let this user in, or the settings lack what it asks for.
    pub(super) fn is_final(&self) -> bool {
        self.kind == ErrorKind::Config || self.sqlstate().is_some_and(|code| code.starts_with("28"))
    }

    /// Puts the way that was tried in front of the reason.
    pub(super) fn context(mut self, way: impl fmt::Display) -> Self {
        self.reason = format!("{way}: {}", self.reason);
        self
    }

    /// Tells what happened on the earlier way too. What a server said counts for more than that none was there.
    pub(super) fn after(mut self, earlier: Option<Self>) -> Self {
        let Some(earlier) = earlier else { return self };
        self.reason = format!("{}; then {}", earlier.reason, self.reason);
        if self.source.is_none() && earlier.source.is_some() {
            return Self { reason: self.reason, ..earlier };
        }
        self
    }

    fn sqlstate(&self) -> Option<&str> {
        self.source.as_ref().and_then(tokio_postgres::Error::code).map(|state| state.code())
    }
}

/// One error for all hosts, one line each.
///
/// Its kind and source are those of the failure that ended the search, if one did. Else the kind is what all failures
/// have in common, or [`ErrorKind::Connect`], and the source is what the first server said that said anything.
pub(super) fn report(mut failures: Vec<(&Host, Failure)>) -> Error {
    let mut message = match failures.as_slice() {
        [(host, failure)] => format!("cannot connect to {host}: {}", failure.reason),
        _ => String::from("no server could be reached"),
    };
    if failures.len() > 1 {
        for (host, failure) in &failures {
            let _ = write!(message, "\n  {host}: {}", failure.reason);
        }
    }
    let last = failures.pop().map(|(_, failure)| failure);
    let (kind, source) = match last {
        None => (ErrorKind::Connect, None),
        Some(last) if last.is_final() => (last.kind, last.source),
        Some(last) => {
            let agree = failures.iter().all(|(_, other)| other.kind == last.kind);
            let kind = if agree { last.kind } else { ErrorKind::Connect };
            (kind, failures.into_iter().find_map(|(_, failure)| failure.source).or(last.source))
        }
    };
    match source {
        Some(source) => Error::new(kind, message).with_source(source),
        None => Error::new(kind, message),
    }
}

/// An error and what lies beneath it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
