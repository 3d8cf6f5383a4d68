//! Tables of the integration document become ours, whatever works with them goes on, and nothing is lost.

mod back;
mod going_on;
mod own;
mod refused;
mod variants;

use doorbell::{Broker, ErrorKind, migrate::Adopt};
use tokio_postgres::Client;

use super::migrations::{catalog, functions};
use crate::support::{Database, count, echo};

const DOCUMENT: &str = include_str!("document.sql");

/// The document's statements as PostgreSQL takes them.
fn document() -> String {
    let (mut indexes, mut tables) = (String::new(), String::new());
    for line in DOCUMENT.lines() {
        match line.trim().strip_prefix("INDEX ") {
            Some(index) => {
                let (name, columns) = index.trim_end_matches(',').split_once(' ').unwrap();
                indexes += &format!("CREATE INDEX {name} ON integration.data_staging {columns};\n");
            }
            None => {
                tables += line;
                tables += "\n";
            }
        }
    }
    assert_eq!(indexes.lines().count(), 2);
    tables.replace("processed_at TIMESTAMP,\n\n)", "processed_at TIMESTAMP\n)") + &indexes
}

/// Rows in every status, old and new, an archive, and history; all of `billing`, with times as Berlin's clocks show them.
const ROWS: &str = "
    create table integration.data_staging_archive (like integration.data_staging including defaults);
    insert into integration.data_staging
        (source_app, target_app, record_type, data, status, priority, retry_count, error_message, created_at, updated_at,
         processed_at)
    select 'erp', 'billing', 'order.placed', jsonb_build_object('n', n, 'text', 'grüße'), s.status, n % 3,
           case s.status when 'failed' then 4 when 'pending' then n % 2 else 0 end,
           case s.status when 'failed' then 'no luck' end, t.at, t.at + interval '1 s',
           case s.status when 'completed' then t.at + interval '1 s' end
      from generate_series(1, 400) n
     cross join lateral (select (array['pending', 'processing', 'completed', 'failed'])[1 + n % 4]) s (status)
     cross join lateral (select localtimestamp - n * interval '10 min') t (at);
    insert into integration.data_staging_archive select * from integration.data_staging where id in (2, 6, 10);
    insert into integration.audit_log (staging_id, app_name, action, details)
    select d.id, 'erp', 'published', '{\"by\": \"hand\"}' from integration.data_staging d where d.id > 10;
    delete from integration.data_staging where id in (2, 6, 10);
    -- Was given out, and is gone.
    select nextval('integration.data_staging_id_seq');";

/// A database of the document's, in which nothing of Doorbell has been.
async fn populated() -> (Database, Client) {
    let db = Database::empty().await;
    let client = db.client().await;
    let zone = format!("alter database {} set timezone = 'Europe/Berlin'; set timezone = 'Europe/Berlin'", db.name());
    client.batch_execute(&format!("{zone}; create schema integration")).await.unwrap();
    client.batch_execute(&document()).await.unwrap();
    client.batch_execute(ROWS).await.unwrap();
    (db, client)
}

/// All that the tables hold of the document's columns, with times as instants: the same before and after.
async fn contents(client: &Client) -> Vec<String> {
    let mut all = Vec::new();
    for (table, times) in [
        ("data_staging", &["created_at", "updated_at", "processed_at"][..]),
        ("data_staging_archive", &["created_at", "updated_at", "processed_at"]),
        ("audit_log", &["created_at"]),
    ] {
        let (last, columns) = match table {
            "audit_log" => (390, "id, staging_id, app_name, action, details::jsonb"),
            _ => (
                400,
                "id, source_app, target_app, record_type, data::jsonb, status, priority, retry_count, error_message",
            ),
        };
        let times: Vec<_> = times.iter().map(|time| format!("{time}::timestamptz as {time}")).collect();
        let sql = format!(
            "select to_jsonb(r)::text from (select {columns}, {} from integration.{table} where id <= {last}) r order by r.id",
            times.join(", ")
        );
        all.extend(
            client.query(&sql, &[]).await.unwrap().iter().map(|row| format!("{table} {}", row.get::<_, &str>(0))),
        );
    }
    all
}

fn same(before: &[String], after: &[String]) {
    for (before, after) in before.iter().zip(after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
}

async fn adopt(broker: &Broker) -> doorbell::migrate::Report {
    broker.adopt(&Adopt::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_schema_is_a_fresh_one_that_holds_every_row() {
    let (db, client) = populated().await;
    let before = contents(&client).await;
    assert_eq!(before.len(), 397 + 3 + 390);
    let broker = db.broker().await;
    let adoption = broker.adoption(&Adopt::default()).await.unwrap().unwrap();
    assert!(adoption.differences.is_empty(), "{:?}", adoption.differences);
    assert_eq!(adoption.times_in.as_deref(), Some("Europe/Berlin"));
    let rows = ["data_staging", "data_staging.completed", "data_staging_archive", "audit_log"];
    assert_eq!(rows.map(|name| adoption.rows[name]), [397, 97, 3, 390]);
    assert_eq!(adoption.left.len(), 3, "two indexes and the foreign key: {:?}", adoption.left);
    same(&before, &contents(&client).await);

    let report = adopt(&broker).await;
    assert_eq!(report.adopted.as_ref(), Some(&adoption));
    // The session reads times in its own zone, as the old tables were written.
    same(&before, &contents(&client).await);
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    assert_eq!(
        count(&client, "select messages from integration.current_counters where status = 'completed'").await,
        97
    );
    assert_eq!(
        count(&client, "select count(*) from integration.audit_log where target_app = 'billing'").await,
        390,
        "history says whose it is"
    );
    let rates = "select count(*) from (\
        select sum(published), sum(failed) from integration.outcomes union \
        select count(*), count(*) filter (where status = 'failed') from integration.data_staging \
        where created_at > now() - interval '2 days') r";
    assert_eq!(count(&client, rates).await, 1, "error rates are those of the rows");
    assert!(broker.adoption(&Adopt::default()).await.unwrap().is_none());
    assert!(adopt(&broker).await.applied.is_empty());
    let status = broker.migration_status().await.unwrap();
    assert!(status.pending.is_empty() && !status.is_occupied);

    let fresh = Database::new().await.client().await;
    assert_eq!(functions(&client).await, functions(&fresh).await);
    assert_eq!(catalog(&client).await, catalog(&fresh).await);
    let old = format!("select count(*) from {}.data_staging", adoption.before);
    assert_eq!(count(&client, &old).await, 397, "the old table is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pending_is_handled_by_ours_and_ids_go_on_after_the_last() {
    let (db, client) = populated().await;
    let broker = db.broker().await;
    adopt(&broker).await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    let mut handled: Vec<i64> = told.take(100).await.iter().map(|delivery| delivery.id).collect();
    handled.sort_unstable();
    assert_eq!(handled, (1..=100).map(|n| n * 4).collect::<Vec<i64>>());
    consumer.shutdown().await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    let id = crate::support::plain_insert(&client, "billing", "{}").await;
    assert_eq!(id, 402, "401 was given out before");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_being_told_a_migration_changes_nothing_and_says_what_to_do() {
    let (db, client) = populated().await;
    let before = contents(&client).await;
    let broker = db.broker().await;
    let error = broker.migrate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema, "{error:?}");
    assert!(error.to_string().contains("doorbell migrate --adopt --dry-run"), "{error}");
    assert!(broker.migration_status().await.unwrap().is_occupied);
    same(&before, &contents(&client).await);
    assert_eq!(count(&client, "select count(*) from pg_class where relname = 'migrations'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_adopt_at_once_one_does_and_the_others_find_it_done() {
    let (db, client) = populated().await;
    let brokers = futures::future::join_all((0..8).map(|_| db.broker())).await;
    let how = Adopt::default();
    let reports = futures::future::try_join_all(brokers.iter().map(|broker| broker.adopt(&how))).await.unwrap();
    assert_eq!(reports.iter().filter(|report| report.adopted.is_some()).count(), 1);
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 397);
}
