//! How the program ends: its exit codes, and failures on their way to one.

use std::{fmt, io, process::ExitCode};

use doorbell::ErrorKind;

use super::output;

/// The exit codes, as `doorbell --help` says them, too; part of the contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Done = 0,
    /// 1: failed, for a reason that none of the others names.
    Failed = 1,
    /// 2: the command line or the configuration cannot be used. clap ends with it, too.
    Usage = 2,
    /// 3: there was nothing to do it to.
    NothingFound = 3,
    /// 4: a check says no (`migrate --check`).
    CheckFailed = 4,
    /// 65: the data given cannot be accepted (EX_DATAERR).
    BadData = 65,
    /// 69: no database can be reached or started (EX_UNAVAILABLE).
    Unreachable = 69,
    /// 75: the same command may succeed later (EX_TEMPFAIL).
    Temporary = 75,
    /// 130: ended by Ctrl-C or SIGTERM before it was done.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not end well, in words for a person, and the exit code for scripts.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
    /// Whoever read our output left: that is the end, but no failure worth a word.
    quiet: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), quiet: false }
    }

    /// Puts what was being done in front.
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// Says it on stderr and returns the exit code.
    pub(crate) fn report(&self) -> Exit {
        if self.quiet {
            return Exit::Done;
        }
        // It may quote names, which are any text.
        let lines: Vec<String> = self.message.lines().map(output::printable).collect();
        eprintln!("doorbell: {}", lines.join("\n"));
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<doorbell::Error> for Failure {
    fn from(error: doorbell::Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Config => Exit::Usage,
            ErrorKind::Invalid => Exit::BadData,
            ErrorKind::NotFound => Exit::NothingFound,
            ErrorKind::Connect => Exit::Unreachable,
            // What the server says about values: numbers out of range, failed checks.
            _ if error.sqlstate().is_some_and(|code| code.starts_with("22") || code == "23514") => Exit::BadData,
            _ if error.is_transient() => Exit::Temporary,
            _ => Exit::Failed,
        };
        let mut message = chain(&error);
        match error.kind() {
            // The server does not know a table or function: nobody has migrated this database.
            ErrorKind::Schema if error.sqlstate().is_some() => message.push_str("; run: doorbell migrate"),
            ErrorKind::OutcomeUnknown => message.push_str("; whether it happened is not known"),
            _ => {}
        }
        Self::new(exit, message)
    }
}

/// That no PostgreSQL is installed means that there is no database.
impl From<doorbell_server::Error> for Failure {
    fn from(error: doorbell_server::Error) -> Self {
        let exit = match error.kind() {
            doorbell_server::ErrorKind::Config => Exit::Usage,
            doorbell_server::ErrorKind::NotFound => Exit::Unreachable,
            doorbell_server::ErrorKind::Timeout => Exit::Temporary,
            _ => Exit::Failed,
        };
        Self::new(exit, chain(&error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        Self { exit: Exit::Failed, message: error.to_string(), quiet }
    }
}

/// An error and its causes, each said once. What the server itself says is in the library's words already, and its
/// details quote rows, so it is left out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<tokio_postgres::Error>().is_some_and(|error| error.as_db_error().is_some()) {
            break;
        }
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
