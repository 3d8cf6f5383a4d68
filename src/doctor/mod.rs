//! The doctor: looks at a database, its schema, the way to it and the fleet, and says what is wrong and what to type.
//!
//! It changes nothing: every look is a read-only transaction with short limits, but for the bell's test, which publishes a
//! message and takes it back in the same transaction. What cannot be looked at (a missing right, a lock) is a finding, too.

mod finding;

mod bell;
mod clock;
mod drift;
mod fleet;
mod horizon;
mod partitions;
mod privileges;
mod server;
mod session;
mod tables;

use std::time::Duration;

use self::session::Session;
use crate::{
    connection::Settings,
    error::{Error, ErrorKind, Result},
    migrate,
};

pub use finding::{Finding, Level, Report};

/// What the doctor calls old, slow and long.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// A transaction open for so long is a warning, for twelve times as long a problem: it keeps dead rows from being
    /// removed. Default 5 min.
    pub transaction_old: Duration,
    /// A target whose oldest pending message waits for so long should have a consumer that takes it. Default 1 min.
    pub waiting_long: Duration,
    /// How long a bell may take to arrive. Default 5 s.
    pub bell_within: Duration,
    /// How long one check may take. Default 15 s.
    pub check_within: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transaction_old: Duration::from_secs(300),
            waiting_long: Duration::from_secs(60),
            bell_within: Duration::from_secs(5),
            check_within: Duration::from_secs(15),
        }
    }
}

/// Runs one check; its failure is a finding.
macro_rules! checked {
    ($report:ident, $within:expr, $name:literal, $check:expr) => {
        match tokio::time::timeout($within, $check).await {
            Ok(Ok(findings)) => $report.findings.extend(findings),
            Ok(Err(error)) => $report.findings.push(unseen($name, &error)),
            Err(_) => $report.findings.push(unseen($name, &Error::new(ErrorKind::Timeout, "it took too long"))),
        }
    };
}

/// Examines the database behind the settings.
pub(crate) async fn examine(settings: &Settings, options: &Options) -> Result<Report> {
    let mut session = Session::open(settings).await?;
    let mut report = Report::default();
    let within = options.check_within;
    checked!(report, within, "server", server::check(&mut session));
    let schema = match migrate::status(settings).await {
        Ok(status) => drift::version(&status),
        Err(error) => drift::refused(&error),
    };
    let usable = schema.level < Level::Problem;
    report.findings.push(schema);
    checked!(report, within, "horizon", horizon::check(&mut session, options));
    checked!(report, within, "notify_queue", horizon::notify_queue(&mut session));
    // Without the schema, everything below would say so once more.
    if usable {
        checked!(report, within, "drift", drift::check(&mut session));
        checked!(report, within, "privileges", privileges::check(&mut session));
        checked!(report, within, "clock", clock::check(&mut session));
        checked!(report, within + options.bell_within * 2, "bell", bell::check(settings, &mut session, options));
        checked!(report, within, "tables", tables::check(&mut session));
        checked!(report, within, "partitions", partitions::check(&mut session));
        checked!(report, within, "consumers", fleet::consumers(&mut session));
        checked!(report, within, "targets", fleet::targets(&mut session, options));
        checked!(report, within, "stuck", fleet::stuck(&mut session));
    }
    Ok(report)
}

fn unseen(check: &'static str, error: &Error) -> Finding {
    let finding = Finding::new(check, Level::Warning, "could not be looked at").evidence(format!("{error:?}"));
    match error.sqlstate() {
        Some("42501") => finding.fix("ask as the owner of the schema, or as a member of pg_monitor"),
        _ => finding,
    }
}
