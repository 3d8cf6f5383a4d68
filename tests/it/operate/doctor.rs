//! The doctor, before real illnesses: what it finds, how bad it says that is, and that its fixes heal.

mod drift;
mod fleet;
mod rights;
mod tables;

use std::time::Duration;

use doorbell::{
    Broker,
    doctor::{Finding, Level, Options, Report},
};
use tokio_postgres::Client;

use crate::{
    proxy::{Proxy, Weather},
    support::{Database, count},
};

async fn examined(db: &Database) -> Report {
    db.broker().await.operator().doctor(&patient()).await.unwrap()
}

/// Nothing in a test is old.
fn patient() -> Options {
    Options { bell_within: Duration::from_secs(30), ..Options::default() }
}

/// For bells that will not come; those that do have to come in this time, too.
fn waiting_in_vain() -> Options {
    Options { bell_within: Duration::from_secs(5), ..Options::default() }
}

/// What a check found that is worse than well.
fn ills<'a>(report: &'a Report, check: &str) -> Vec<&'a Finding> {
    report.findings.iter().filter(|finding| finding.check == check && finding.level > Level::Ok).collect()
}

/// The one finding of a check that speaks of this.
#[track_caller]
fn finding<'a>(report: &'a Report, check: &str, about: &str) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.check == check && finding.what.contains(about));
    found.unwrap_or_else(|| panic!("no finding of {check} speaks of {about:?}: {report:#?}"))
}

/// Types what the finding says, as somebody who has made sure of what it says first.
async fn heal(client: &Client, finding: &Finding) {
    let fix = finding.fix.as_deref().unwrap_or_else(|| panic!("there is a fix for {finding:?}"));
    let fix = fix.rsplit_once("then: ").map_or(fix, |(_, command)| command);
    client.batch_execute(fix).await.unwrap_or_else(|error| panic!("{fix}: {error:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_database_is_well_in_every_respect_and_is_left_as_it_was() {
    let db = Database::new().await;
    let client = db.client().await;
    let report = examined(&db).await;
    // The tests share a server: its connections are also the others', and it is not made to survive a crash.
    let own = |finding: &&Finding| finding.level > Level::Ok && !["connections", "settings"].contains(&finding.check);
    let ills: Vec<_> = report.findings.iter().filter(own).collect();
    // And a superuser made the schema.
    assert_eq!(ills, [finding(&report, "rights", "a superuser")]);
    assert_eq!(finding(&report, "settings", "fsync is off").level, Level::Problem);
    let checks = "server schema horizon notify_queue drift privileges rights locks clock bell counters tables partitions processes targets stuck set_aside audit maintenance wakeups";
    for check in checks.split(' ') {
        assert!(report.findings.iter().any(|finding| finding.check == check), "{check} was looked at");
    }
    assert!(finding(&report, "bell", "INSERT and its trigger").what.contains("woke"));
    for table in ["data_staging", "audit_log", "processes", "dedup_keys", "deltas", "stats"] {
        assert_eq!(count(&client, &format!("select count(*) from integration.{table}")).await, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_is_told_to_migrate_and_nothing_else() {
    let report = examined(&Database::empty().await).await;
    assert_eq!(report.worst(), Level::Problem);
    assert_eq!(finding(&report, "schema", "not there").fix.as_deref(), Some("doorbell migrate"));
    assert!(ills(&report, "drift").is_empty() && ills(&report, "bell").is_empty(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_on_which_notifications_get_lost_is_a_problem() {
    let db = Database::new().await;
    let proxy = Proxy::to(&db.url).await;
    proxy.set(Weather::DEAF);
    let broker = Broker::connect(&proxy.url).await.unwrap();
    let report =
        broker.operator().doctor(&Options { bell_within: Duration::from_millis(300), ..patient() }).await.unwrap();
    let found = finding(&report, "bell", "do not arrive");
    assert_eq!(found.level, Level::Problem);
    assert!(found.fix.as_deref().unwrap().contains("direct connection"), "{found:?}");
    proxy.set(Weather::default());
    assert!(ills(&broker.operator().doctor(&patient()).await.unwrap(), "bell").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_break_a_promise_are_named() {
    let db = Database::new().await;
    let settings = "-c synchronous_commit=off -c session_replication_role=replica -c integration.notify=off";
    let broker = Broker::connect(&format!("{} options='{settings}'", db.url)).await.unwrap();
    let report = broker.operator().doctor(&waiting_in_vain()).await.unwrap();
    assert_eq!(finding(&report, "settings", "synchronous_commit is off").level, Level::Warning);
    assert_eq!(finding(&report, "settings", "session_replication_role is replica").level, Level::Problem);
    assert_eq!(finding(&report, "settings", "integration.notify is off").level, Level::Note);
    assert_eq!(finding(&report, "bell", "rings no bell").level, Level::Problem);
}
