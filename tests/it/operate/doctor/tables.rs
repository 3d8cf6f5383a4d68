//! What keeps tables from staying small, and what was left in them.

use std::time::Duration;

use doorbell::{
    Broker,
    doctor::{Level, Options},
};
use doorbell_server::{EphemeralOptions, Server};

use super::{examined, finding, heal, ills, patient};
use crate::{
    failover::pair::Pair,
    support::{Database, connect, count, plain_insert, row, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_named_with_its_session() {
    let db = Database::new().await;
    let mut idle = db.client().await;
    let pid = count(&idle, "select pg_backend_pid()::bigint").await;
    let tx = idle.transaction().await.unwrap();
    tx.execute("create temporary table pinned ()", &[]).await.unwrap();
    let broker = db.broker().await;
    let impatient = |old| Options { transaction_old: old, ..patient() };
    let report = broker.operator().doctor(&impatient(Duration::ZERO)).await.unwrap();
    let found = finding(&report, "horizon", "transaction open");
    assert_eq!(found.level, Level::Problem);
    assert!(found.evidence.as_deref().unwrap().contains(&format!("pid {pid},")), "{found:?}");
    assert!(found.fix.as_deref().unwrap().contains(&format!("pg_terminate_backend({pid})")), "{found:?}");
    let report = broker.operator().doctor(&impatient(Duration::from_secs(3600))).await.unwrap();
    assert!(ills(&report, "horizon").is_empty(), "{report:#?}");
    // Whoever is parked is a listener, and a listener in a transaction was stopped.
    tx.execute("select integration.park('billing')", &[]).await.unwrap();
    let report = broker.operator().doctor(&impatient(Duration::ZERO)).await.unwrap();
    let ours = finding(&report, "horizon", "a session of Doorbell's");
    assert!(ours.evidence.as_deref().unwrap().contains(&format!("pid {pid},")), "{ours:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_prepared_transaction_and_an_unused_slot_are_named() {
    let settings = [("max_prepared_transactions", "5"), ("wal_level", "replica"), ("max_wal_senders", "2")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server = Server::ephemeral(EphemeralOptions { settings, ..Default::default() }).await.unwrap();
    let url = server.connection_string("postgres");
    let broker = Broker::connect(&url).await.unwrap();
    broker.migrate().await.unwrap();
    let client = connect(&url).await;
    // Transactions of two phases: what the pages say to set, because a notification cannot be prepared.
    let parked = connect(&url).await;
    parked.batch_execute("select integration.park('orders')").await.unwrap();
    let publish = "begin; NOTIFY select integration.publish('shop', 'orders', 'n', '1'); prepare transaction 'order'";
    let refused = client.batch_execute(&publish.replace("NOTIFY", "")).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "0A000");
    client.batch_execute("rollback").await.unwrap();
    client.batch_execute(&publish.replace("NOTIFY", "set local integration.notify = off;")).await.unwrap();
    client.batch_execute("commit prepared 'order'").await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'pending'").await, 1);
    drop(parked);
    // The copies of a topic's message are prepared with it.
    client.batch_execute("select integration.subscribe('events', 'mailer')").await.unwrap();
    let event = publish.replace("NOTIFY", "set local integration.notify = off;").replace("'orders'", "'events'");
    client.batch_execute(&event).await.unwrap();
    let copies = "select count(*) from integration.data_staging where target_app = 'mailer' and status = 'pending'";
    assert_eq!(count(&client, copies).await, 0);
    client.batch_execute("commit prepared 'order'").await.unwrap();
    assert_eq!(count(&client, copies).await, 1);
    client
        .batch_execute(
            "begin; set local integration.notify = off; select integration.pause('billing'); \
             prepare transaction 'it''s forgotten'",
        )
        .await
        .unwrap();
    let report = broker.operator().doctor(&Options { transaction_old: Duration::ZERO, ..patient() }).await.unwrap();
    let found = finding(&report, "horizon", "a prepared transaction");
    assert_eq!(found.level, Level::Problem);
    let (ask, rollback) = found.fix.as_deref().unwrap().rsplit_once(" or ").unwrap();
    assert!(ask.starts_with("ask its transaction manager"), "{found:?}");
    client.batch_execute(rollback).await.unwrap();
    client.batch_execute("select pg_create_physical_replication_slot('forgotten', true)").await.unwrap();
    let report = broker.operator().doctor(&patient()).await.unwrap();
    finding(&report, "horizon", "replication slot forgotten keeps WAL, and nobody uses it");
    assert_eq!(ills(&report, "horizon").len(), 1, "{report:#?}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_query_keeps_dead_rows_lets_go_of_them_after_what_the_doctor_says() {
    let pair = Pair::start().await;
    let (primary, standby) = (pair.client_of_primary().await, pair.client_of_standby().await);
    let broker = Broker::connect(&pair.url()).await.unwrap();
    broker.migrate().await.unwrap();
    let id = plain_insert(&primary, "billing", "1").await;
    for setting in ["hot_standby_feedback = on", "wal_receiver_status_interval = '1 s'"] {
        standby.batch_execute(&format!("alter system set {setting}")).await.unwrap();
    }
    standby.batch_execute("select pg_reload_conf()").await.unwrap();
    let reader = pair.client_of_standby().await;
    reader.batch_execute("begin isolation level repeatable read; select count(*) from pg_class").await.unwrap();
    until(
        &primary,
        "the standby says so",
        "select exists (select from pg_stat_replication where backend_xmin is not null)",
    )
    .await;
    for _ in 0..20 {
        primary.batch_execute("select pg_current_xact_id()").await.unwrap();
    }
    until(&primary, "it lies behind", "select bool_or(age(backend_xmin) >= 20) from pg_stat_replication").await;
    let options = Options { transactions_many: 10, ..patient() };
    let report = broker.operator().doctor(&options).await.unwrap();
    let found = finding(&report, "horizon", "keeps dead rows by hot_standby_feedback");
    let (_, there) = found.fix.as_deref().unwrap().rsplit_once("on that standby: ").unwrap();
    for statement in there.split("; ") {
        standby.batch_execute(statement).await.unwrap();
    }
    until(&primary, "it lets go", "select bool_and(backend_xmin is null) from pg_stat_replication").await;
    let report = broker.operator().doctor(&options).await.unwrap();
    assert!(ills(&report, "horizon").is_empty(), "{report:#?}");
    assert_eq!(row(&primary, id).await.status, "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_plain_sql_left_behind_and_a_table_without_autovacuum_are_found_and_the_fixes_heal() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "insert into integration.data_staging (source_app, target_app, record_type, data, status, updated_at) \
             values ('psql', 'reports', 'n', '1', 'processing', integration.clock() - interval '2 hours'); \
             alter table integration.data_staging set (autovacuum_enabled = false)",
        )
        .await
        .unwrap();
    let report = examined(&db).await;
    let stuck = finding(&report, "stuck", "1 messages have been processing for over an hour");
    assert!(stuck.evidence.as_deref().unwrap().contains("reports"), "{stuck:?}");
    let unvacuumed = finding(&report, "tables", "autovacuum is switched off for data_staging");
    assert_eq!(unvacuumed.level, Level::Problem);
    heal(&client, stuck).await;
    heal(&client, unvacuumed).await;
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'pending'").await, 1);
    let report = examined(&db).await;
    assert!(ills(&report, "stuck").is_empty() && ills(&report, "tables").is_empty(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_month_is_found_and_what_fell_beside_it_can_be_moved() {
    let db = Database::new().await;
    let client = db.client().await;
    let this_month = "select 'audit_log' || to_char(integration.clock() at time zone 'UTC', '\"_\"YYYYMM')";
    let partition: String = client.query_one(this_month, &[]).await.unwrap().get(0);
    client.batch_execute(&format!("drop table integration.{partition}")).await.unwrap();
    let report = examined(&db).await;
    let missing = finding(&report, "partitions", "audit_log has no partition for this month");
    assert_eq!(missing.level, Level::Problem);
    assert!(ills(&report, "partitions").len() == 1, "{report:#?}");

    // Nobody healed it in time, and something was audited.
    let id = plain_insert(&client, "billing", "1").await;
    client.execute("delete from integration.data_staging where id = $1", &[&id]).await.unwrap();
    let report = examined(&db).await;
    heal(&client, finding(&report, "partitions", "1 rows of audit_log lie in its default partition")).await;
    let report = examined(&db).await;
    assert!(ills(&report, "partitions").is_empty() && ills(&report, "drift").is_empty(), "{report:#?}");
    assert_eq!(count(&client, &format!("select count(*) from integration.{partition}")).await, 1);
}
