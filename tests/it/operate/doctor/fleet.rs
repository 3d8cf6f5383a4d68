//! Processes and targets, and who does the maintenance.

use std::time::Duration;

use doorbell::{
    doctor::{Level, Options, Report},
    observe::Metrics,
    operate::Unblock,
};

use super::{examined, finding, ills, patient};
use crate::support::{Database, echo, message, plain_insert, until_status};

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_stopped_beating_is_found_until_somebody_rescues() {
    let db = Database::new().await;
    let client = db.client().await;
    let dead = "insert into integration.processes (owner, host, pid, version, lease_until, beat_at) \
        values ('dead-1', 'gone', 1, '0.1.0', integration.clock() - interval '1 min', integration.clock() - interval '75 s'); \
        insert into integration.data_staging (source_app, target_app, record_type, data, status, owner, attempt) \
        values ('shop', 'billing', 'n', '1', 'processing', 'dead-1', 1); \
        update integration.contact set seen_at = integration.clock(), resumed_at = integration.clock() - interval '1 h'";
    client.batch_execute(dead).await.unwrap();
    let report = examined(&db).await;
    let found = finding(&report, "processes", "stopped beating");
    assert_eq!(found.level, Level::Problem);
    assert!(found.evidence.as_deref().unwrap().contains("dead-1 (pid 1 on gone"), "{found:?}");
    assert!(found.evidence.as_deref().unwrap().contains("holds 1 messages"), "{found:?}");
    db.broker().await.operator().maintain().await.unwrap();
    assert!(ills(&examined(&db).await, "processes").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_nobody_consumes_are_found_and_so_are_paused_targets_breakers_and_dead_letters() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    plain_insert(&client, "nobody", "1").await;
    plain_insert(&client, "paused", "1").await;
    plain_insert(&client, "broken", "1").await;
    broker.operator().pause("paused", Some("the ledger is moved"), None).await.unwrap();
    broker.operator().open_breaker("broken", Some("maintenance"), None).await.unwrap();
    let failed = plain_insert(&client, "failing", "1").await;
    client.execute("update integration.data_staging set status = 'failed' where id = $1", &[&failed]).await.unwrap();
    let (consumer, _seen) = echo(&broker, "busy").await;
    broker.operator().pause("busy", None, None).await.unwrap();
    broker.producer("shop").publish(&message("busy", 1)).await.unwrap();
    let report = broker.operator().doctor(&Options { waiting_long: Duration::ZERO, ..patient() }).await.unwrap();
    assert_eq!(finding(&report, "targets", "messages for nobody wait, and nobody").level, Level::Warning);
    let paused = finding(&report, "targets", "paused is paused");
    assert!(paused.evidence.as_deref().unwrap().contains("the ledger is moved"), "{paused:?}");
    let broken = finding(&report, "targets", "the breaker of broken is open");
    assert_eq!(broken.fix.as_deref(), Some("when its dependency is well: doorbell breaker close broken"));
    finding(&report, "targets", "failing has 1 dead letters");
    assert_eq!(ills(&report, "targets").len(), 5, "{report:#?}");
    // Paused, so that it waits for a reason that is said.
    assert!(finding(&report, "targets", "busy is paused").evidence.as_deref().unwrap().contains("1 live consumers"));
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_nobody_handles_is_named_where_its_name_is_nearly_that_of_one_that_is() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let (consumer, mut told) = echo(&broker, "billing").await;
    for target in ["biling", "orders-1", "orders-2", "reports"] {
        plain_insert(&client, target, "1").await;
    }
    let misspelt =
        |report: &Report| ills(report, "targets").iter().filter(|found| found.what.contains("misspelt")).count();
    let report = examined(&db).await;
    let found = finding(&report, "targets", "the target biling may be billing, misspelt");
    assert_eq!((found.level, misspelt(&report)), (Level::Warning, 1), "{report:#?}");
    assert!(found.evidence.as_deref().unwrap().starts_with("1 messages wait for biling"), "{found:?}");
    assert_eq!(found.fix.as_deref(), Some("if it is: doorbell move --to billing --target biling --dry-run"));
    // One that stopped is known by what it has done, and who sets something for a name means it.
    let id = plain_insert(&client, "billing", "1").await;
    assert_eq!(told.next().await.id, id);
    until_status(&client, id, "completed").await;
    consumer.shutdown().await.unwrap();
    broker.close().await;
    assert_eq!(misspelt(&examined(&db).await), 1);
    client.batch_execute("select integration.set_target('biling', '{}')").await.unwrap();
    assert_eq!(misspelt(&examined(&db).await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_nobody_maintains_and_messages_that_only_sweeps_find_are_named() {
    let db = Database::new().await;
    let client = db.client().await;
    plain_insert(&client, "billing", "1").await;
    let report = examined(&db).await;
    assert_eq!(finding(&report, "maintenance", "nobody does the maintenance").level, Level::Warning);
    client.execute("select integration.lead('somebody', 60000)", &[]).await.unwrap();
    finding(&examined(&db).await, "maintenance", "somebody does it");

    client
        .batch_execute("select integration.note_found('{billing, quiet}', '{100, 1}', '{50, 1}', '{50, 8}')")
        .await
        .unwrap();
    let report = examined(&db).await;
    let swept = finding(&report, "wakeups", "25 % of the messages for billing were found by sweeps");
    assert_eq!(swept.level, Level::Warning);
    assert_eq!(ills(&report, "wakeups").len(), 1, "{report:#?}");
    // Where sweeping is meant, it is no ill.
    let off = "insert into integration.targets (target_app, bell) values ('billing', 'off')";
    client.batch_execute(off).await.unwrap();
    assert!(ills(&examined(&db).await, "wakeups").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_waits_for_somebody_is_found_and_counted() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let blocked = "insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key) \
            select 'shop', 'billing', 'n', to_jsonb(n), 'customer 7' from generate_series(1, 3) n; \
        select integration.reject(c.id, c.attempt, 'x', 'no such card') \
          from integration.claim('billing', 'x', 1, p_lease => '1 min') c";
    client.batch_execute(blocked).await.unwrap();
    let report = examined(&db).await;
    let found = finding(&report, "keys", "1 ordering keys of billing are blocked");
    let evidence = found.evidence.as_deref().unwrap();
    assert!(evidence.contains("no such card") && evidence.contains("2 messages"), "{found:?}");
    assert_eq!(found.fix.as_deref(), Some("doorbell keys billing --blocked"));
    let scraped = Metrics::new().scrape(&broker).await;
    assert!(scraped.contains("doorbell_blocked_keys{target=\"billing\"} 1"), "{scraped}");
    broker.operator().unblock("billing", "customer 7", Unblock::Cancel).await.unwrap();
    assert!(ills(&examined(&db).await, "keys").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_that_cannot_fire_that_nobody_hears_and_that_somebody_has_forgotten_are_named() {
    let db = Database::new().await;
    let client = db.client().await;
    let schedule = |name: &str, target: &str, when: &str| {
        format!("select integration.schedule('{name}', '{target}', 'n', {when});")
    };
    plain_insert(&client, "billing", "1").await;
    client.batch_execute(&schedule("well", "billing", "p_every => '1 h', p_starts_at => now() + '1 h'")).await.unwrap();
    let report = examined(&db).await;
    assert!(ills(&report, "schedules").is_empty(), "{report:#?}");
    finding(&report, "schedules", "each of 1 schedules can fire");

    let nightly = "p_cron => '0 2 * * *'";
    let names = ["zone", "late", "asleep", "over"];
    let all: String = names.map(|name| schedule(name, "billing", nightly)).concat();
    client
        .batch_execute(&(all + &schedule("lost", "bilinng", nightly) + &schedule("unheard", "events", nightly)))
        .await
        .unwrap();
    let ill = "update integration.schedules set time_zone = 'Mars/Olympus' where name = 'zone'; \
        update integration.schedules set next_at = now() - interval '1 h' where name = 'late'; \
        update integration.schedules set next_at = 'infinity' where name = 'over'; \
        update integration.schedules set paused_at = now() - interval '9 days' where name = 'asleep'; \
        insert into integration.targets (target_app, kind, unrouted) values ('events', 'topic', 'reject')";
    client.batch_execute(ill).await.unwrap();
    let scraped = Metrics::new().scrape(&db.broker().await).await;
    let late = scraped.lines().find(|line| line.starts_with("doorbell_schedule_lateness_seconds{target=\"billing\"}"));
    let seconds: f64 = late.unwrap_or_else(|| panic!("{scraped}")).rsplit(' ').next().unwrap().parse().unwrap();
    assert!(seconds >= 3600.0, "{scraped}");
    let report = examined(&db).await;
    assert!(
        finding(&report, "schedules", "zone cannot fire").evidence.as_deref().unwrap().ends_with("zone Mars/Olympus")
    );
    assert_eq!(finding(&report, "schedules", "late should have fired, and has not").level, Level::Problem);
    assert_eq!(finding(&report, "schedules", "asleep is paused, for 9 days").level, Level::Note);
    finding(&report, "schedules", "over has fired for the last time");
    assert_eq!(finding(&report, "schedules", "lost is for bilinng").level, Level::Warning);
    assert!(finding(&report, "schedules", "unheard cannot fire").evidence.as_deref().unwrap().contains("rejects"));
    assert_eq!(ills(&report, "schedules").len(), 6, "{report:#?}");
}
