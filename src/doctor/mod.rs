//! The doctor: looks at a database, its schema, the way to it and the fleet, and says what is wrong and what to type.
//!
//! It changes nothing: every look is a read-only transaction with short limits, but for the bell's test, which publishes a
//! message and takes it back in the same transaction, and for a publish and a claim that are rolled back. What cannot be looked at (a missing right, a lock) is a finding, too.

mod finding;
mod options;

mod audit;
mod bell;
mod clock;
mod contracts;
mod counters;
mod drift;
mod fleet;
mod horizon;
mod keys;
mod limits;
mod locks;
mod misspelt;
mod partitions;
mod policies;
mod privileges;
mod publication;
mod rights;
mod schedules;
mod sequence;
mod server;
mod session;
mod set_aside;
mod sources;
mod tables;
mod topics;
mod trial;
mod upkeep;

use std::time::Duration;

use self::session::Session;
use crate::{
    connection::Settings,
    error::{Error, ErrorKind, Result},
    migrate,
};

pub use finding::{Finding, Level, Report};
pub use options::Options;

/// Examines the database behind the settings.
pub(crate) async fn examine(settings: &Settings, options: &Options) -> Result<Report> {
    let mut session = Session::open(settings).await?;
    let mut report = Report::default();
    let within = options.check_within;
    report.add("server", checked(within, server::check(&mut session)).await);
    let schema = match migrate::status(settings).await {
        Ok(status) => drift::version(&status),
        Err(error) => drift::refused(&error),
    };
    let usable = schema.level < Level::Problem;
    report.findings.push(schema);
    report.add("horizon", checked(within, horizon::check(&mut session, options)).await);
    report.add("notify_queue", checked(within, horizon::notify_queue(&mut session)).await);
    // Without the schema, everything below would say so once more.
    if usable {
        report.add("drift", checked(within, drift::check(&mut session)).await);
        report.add("privileges", checked(within, privileges::check(&mut session)).await);
        report.add("policies", checked(within, policies::check(&mut session)).await);
        report.add("sequence", checked(within, sequence::check(&mut session)).await);
        report.add("trial", checked(within, trial::check(&mut session)).await);
        report.add("rights", checked(within, rights::check(&mut session)).await);
        report.add("locks", checked(within, locks::check(&mut session)).await);
        report.add("clock", checked(within, clock::check(&mut session)).await);
        report
            .add("bell", checked(within + options.bell_within * 2, bell::check(settings, &mut session, options)).await);
        report.add("counters", checked(within, counters::check(&mut session)).await);
        report.add("tables", checked(within, tables::check(&mut session)).await);
        report.add("partitions", checked(within, partitions::check(&mut session)).await);
        report.add("publication", checked(within, publication::check(&mut session)).await);
        report.add("processes", checked(within, fleet::processes(&mut session)).await);
        report.add("connections", checked(within, fleet::connections(&mut session)).await);
        report.add("targets", checked(within, fleet::targets(&mut session, options)).await);
        report.add("targets", checked(within, misspelt::check(&mut session)).await);
        report.add("topics", checked(within, topics::check(&mut session)).await);
        report.add("contracts", checked(within, contracts::check(&mut session)).await);
        report.add("sources", checked(within, sources::check(&mut session)).await);
        report.add("schedules", checked(within, schedules::check(&mut session)).await);
        report.add("stuck", checked(within, fleet::stuck(&mut session)).await);
        report.add("keys", checked(within, keys::check(&mut session)).await);
        report.add("limits", checked(within, limits::check(&mut session)).await);
        report.add("set_aside", checked(within, set_aside::check(&mut session)).await);
        report.add("audit", checked(within, audit::check(&mut session)).await);
        report.add("maintenance", checked(within, upkeep::maintenance(&mut session)).await);
        report.add("wakeups", checked(within, upkeep::wakeups(&mut session)).await);
    }
    Ok(report)
}

/// Runs one check within its time.
async fn checked(within: Duration, check: impl Future<Output = Result<Vec<Finding>>>) -> Result<Vec<Finding>> {
    let late = |_| Err(Error::new(ErrorKind::Timeout, "it took too long"));
    tokio::time::timeout(within, check).await.unwrap_or_else(late)
}

impl Report {
    /// What a check found. Its failure is a finding, too.
    fn add(&mut self, check: &'static str, found: Result<Vec<Finding>>) {
        match found {
            Ok(findings) => self.findings.extend(findings),
            Err(error) => self.findings.push(unseen(check, &error)),
        }
    }
}

fn unseen(check: &'static str, error: &Error) -> Finding {
    let missing = error.sqlstate() == Some("42501");
    let level = if missing { Level::Note } else { Level::Warning };
    let finding = Finding::new(check, level, "could not be looked at").evidence(error.to_string());
    if missing { finding.fix("ask as the owner of the schema") } else { finding }
}
