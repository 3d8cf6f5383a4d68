//! The one error type of the library.
//!
//! `Display` says only what this layer knows; [`std::error::Error::source`] carries the rest, so a chain printer
//! never says a thing twice. Connection strings, passwords and payloads never enter an error.

use std::fmt;

use tokio_postgres::error::{DbError, SqlState};

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, whose turn it is to act ([`Error::kind`]) and what lies beneath it (`source`).
///
/// Small (one pointer), so results stay cheap to return.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of [`Error`]; match on these, not on text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value given by the caller cannot be accepted; the message names the value and the limit.
    Invalid,
    /// A connection string, environment variable or configuration field is unusable.
    Config,
    /// No usable server could be reached, or the connection was lost before anything was sent.
    Connect,
    /// The server refused the statement; [`Error::sqlstate`] has its code.
    Database,
    /// The connection ended while a statement was being committed: it may or may not have happened.
    OutcomeUnknown,
    /// The role may not do that; the message says what to grant, and [`Error::sqlstate`] is 42501.
    Forbidden,
    /// The message is no longer owned by who tried to settle it: another attempt has it, or somebody settled it.
    LeaseLost,
    /// No such message, target or other named thing.
    NotFound,
    /// The change of state is not allowed from the message's present status.
    IllegalTransition,
    /// The schema is missing, behind, newer than this program, or was altered.
    Schema,
    /// A deadline passed.
    Timeout,
    /// A request ended without a reply, or has not ended in time; see [`Answer::reply`](crate::Answer::reply).
    Unanswered,
    /// The consumer or broker was shut down.
    Closed,
    /// Something outside the database failed: a file, a process, the private server.
    Io,
}

impl ErrorKind {
    /// As telemetry names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Config => "config",
            Self::Connect => "connect",
            Self::Database => "database",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Forbidden => "forbidden",
            Self::LeaseLost => "lease_lost",
            Self::NotFound => "not_found",
            Self::IllegalTransition => "illegal_transition",
            Self::Schema => "schema",
            Self::Timeout => "timeout",
            Self::Unanswered => "unanswered",
            Self::Closed => "closed",
            Self::Io => "io",
        }
    }
}

impl Error {
    /// Found out when connecting, or later from what the server says.
    pub(crate) const NAMES_ARE_SHARED: &str = "a pooler between this program and PostgreSQL has its clients share the names \
        of prepared statements, so that they execute each other's: set DOORBELL_PREPARED_STATEMENTS=off \
        (Settings::with_prepared_statements), use PgBouncer 1.21 or newer with max_prepared_statements, or connect directly";

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts what was being done in front of the message.
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Of the kind [`Config`](ErrorKind::Config), for what stands on this library and has settings of its own.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the settle came too late: somebody else owns or has settled the message.
    pub fn is_lease_lost(&self) -> bool {
        self.0.kind == ErrorKind::LeaseLost
    }

    /// Whether the same call may succeed later without anything being changed by the caller.
    ///
    /// True for lost or refused connections, restarts, exhausted resources, lock time-outs, deadlocks and
    /// serialization failures. [`ErrorKind::OutcomeUnknown`] is transient too, but only a call that is harmless when
    /// it happens twice (a publish with a dedup key, any settle) should be repeated.
    pub fn is_transient(&self) -> bool {
        match self.0.kind {
            ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::OutcomeUnknown => true,
            ErrorKind::Database => self.sqlstate().is_some_and(sqlstate_is_transient),
            _ => false,
        }
    }

    /// Whether the server certainly did nothing: it was not reached, or refused before it executed anything, because it has no
    /// connection left or is read-only. Any call may be repeated then; publishes are, for
    /// [`publish_within`](crate::BrokerConfig::publish_within).
    ///
    /// After any other error only what is harmless to do twice should be repeated: a publish with a dedup key.
    pub fn is_refused(&self) -> bool {
        self.0.kind == ErrorKind::Connect || self.sqlstate().is_some_and(|code| matches!(code, "25006" | "53300"))
    }

    /// Whether the server refused to change one of several messages, so that it may be asked to go on without it.
    pub(crate) fn is_refusal(&self) -> bool {
        let passes = |code: &str| sqlstate_is_transient(code) || matches!(&code[..2], "25" | "58" | "XX");
        !self.is_lease_lost() && self.sqlstate().is_some_and(|code| !passes(code))
    }

    /// The server's error code, where the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        sqlstate_of(std::error::Error::source(self))
    }

    /// The target whose contract rejected a publish: nothing of it was stored. `None`: it failed for another reason. Of a
    /// publish of many it is that of the message that was met first.
    pub fn contract_of(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Detail {
            target_app: String,
        }
        let db = db_error_of(std::error::Error::source(self))?;
        let rejected = db.code() == &SqlState::CHECK_VIOLATION && db.constraint() == Some("data");
        let detail: Option<Detail> = rejected.then(|| serde_json::from_str(db.detail()?).ok()).flatten();
        detail.map(|detail| detail.target_app)
    }
}

/// The server's error code in an error or its causes.
fn sqlstate_of<'a>(cause: Option<&'a (dyn std::error::Error + 'static)>) -> Option<&'a str> {
    Some(db_error_of(cause)?.code().code())
}

/// What the server said, in an error or its causes.
fn db_error_of<'a>(mut cause: Option<&'a (dyn std::error::Error + 'static)>) -> Option<&'a DbError> {
    while let Some(error) = cause {
        if let Some(db) = error.downcast_ref::<DbError>() {
            return Some(db);
        }
        cause = error.source();
    }
    None
}

/// Whether a transaction was undone because of others: it could not be serialized with them, or was in their way (class 40).
pub(crate) fn is_conflict(error: &(dyn std::error::Error + 'static)) -> bool {
    sqlstate_of(Some(error)).is_some_and(|code| code.starts_with("40"))
}

/// SQLSTATEs after which the same statement may succeed: lost connections (08), shutdown and start-up (57P0x),
/// a server that became read-only (25006), exhausted resources (53; 53400 for one's limit of pending
/// messages), lock time-outs (55P03), cancelled statements
/// (57014), deadlocks and serialization failures (40).
fn sqlstate_is_transient(code: &str) -> bool {
    code.starts_with("08")
        || code.starts_with("53")
        || code.starts_with("40")
        || code.starts_with("57P")
        || matches!(code, "25006" | "55P03" | "57014")
}

/// Turns the driver's error into ours: the SQLSTATEs raised by our own SQL functions become kinds here and nowhere else.
impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            let kind = match db.code().code() {
                "MQ001" => ErrorKind::LeaseLost,
                "MQ002" => ErrorKind::Invalid,
                "MQ003" => ErrorKind::IllegalTransition,
                "MQ004" => ErrorKind::NotFound,
                "42501" => ErrorKind::Forbidden,
                "3F000" | "42P01" | "42883" | "42703" => ErrorKind::Schema,
                // Of ours none was renamed, forgotten or made twice.
                "26000" | "42P05" => return Self::new(ErrorKind::Config, Self::NAMES_ARE_SHARED).with_source(error),
                "08P01" if db.routine() == Some("exec_bind_message") => {
                    return Self::new(ErrorKind::Config, Self::NAMES_ARE_SHARED).with_source(error);
                }
                // Ended in the middle of something, which may have been a commit.
                "57P01" | "57P02" => ErrorKind::OutcomeUnknown,
                "57P03" => ErrorKind::Connect,
                _ => ErrorKind::Database,
            };
            let mut message = db.message().to_owned();
            if let Some(hint) = db.hint() {
                message.push_str(" (");
                message.push_str(hint);
                message.push(')');
            }
            if let Some(advice) = advice(db) {
                message.push_str("; ");
                message.push_str(&advice);
            }
            return Self::new(kind, message).with_source(error);
        }
        let kind = if error.is_closed() || std::error::Error::source(&error).is_some_and(|e| e.is::<std::io::Error>()) {
            ErrorKind::OutcomeUnknown
        } else {
            ErrorKind::Database
        };
        let message = match kind {
            ErrorKind::OutcomeUnknown => "the connection to PostgreSQL was lost",
            _ => "PostgreSQL did not accept the statement",
        };
        Self::new(kind, message).with_source(error)
    }
}

/// What is known of a connection that could not be made is known of ours.
impl From<doorbell_connection::Error> for Error {
    fn from(error: doorbell_connection::Error) -> Self {
        use doorbell_connection::ErrorKind as Kind;
        let (kind, message, source) = error.into_parts();
        let kind = match kind {
            Kind::Config => ErrorKind::Config,
            Kind::Database => ErrorKind::Database,
            Kind::Io => ErrorKind::Io,
            _ => ErrorKind::Connect,
        };
        Self(Box::new(Inner { kind, message, source }))
    }
}

/// What the server cannot know about its own error.
fn advice(db: &DbError) -> Option<String> {
    let schema = || db.schema().unwrap_or("integration").to_owned();
    match (db.code().code(), db.constraint()) {
        ("23505", Some("data_staging_pkey")) => Some(format!(
            "the sequence of ids is behind the table, as after rows were copied with their ids: select setval('{0}.data_staging_id_seq', \
             (select max(id) from {0}.data_staging))",
            schema()
        )),
        _ if db.routine() == Some("internal_load_library") => {
            Some("were the files of the server replaced while it runs? Then it has to be restarted".to_owned())
        }
        _ => None,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)?;
        let mut cause = self.0.source.as_deref().map(|s| s as &dyn std::error::Error);
        while let Some(error) = cause {
            // What the server said is in our message already, and its details quote rows: payloads.
            if let Some(db) = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::as_db_error)
            {
                // Why a host refused says it already.
                let code = db.code().code();
                return if self.0.message.contains(code) { Ok(()) } else { write!(f, " (SQLSTATE {code})") };
            }
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}
