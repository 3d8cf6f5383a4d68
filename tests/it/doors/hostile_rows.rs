//! Rows that are well-formed and meant to stop somebody: each column at its extremes.

use tokio_postgres::Client;

use super::{answer, role};
use crate::support::{Database, count};

/// Columns that a publisher may set, and what with; the answer to him.
const PUBLISHED: &[(&str, &str, &str)] = &[
    ("priority", "2147483647", ""),
    ("priority", "-2147483648", ""),
    ("max_retries", "2147483647", ""),
    ("max_retries", "-1", "23514"),
    ("created_at", "'0001-01-01 UTC'", ""),
    ("created_at", "'9999-12-30 UTC'", ""),
    ("created_at", "'4713-01-01 BC'", "23514"),
    ("created_at", "'294276-12-31'", "23514"),
    ("created_at", "'infinity'", "23514"),
    ("created_at", "'-infinity'", "23514"),
    ("updated_at", "'-infinity'", "23514"),
    ("status, available_at", "'scheduled', '9999-12-30 UTC'", ""),
    ("status, available_at", "'scheduled', '0001-01-01 UTC'", ""),
    ("status, available_at", "'scheduled', 'infinity'", "23514"),
    ("status, available_at", "'scheduled', '-infinity'", "23514"),
    ("headers", "jsonb_build_object('a', repeat('x', 60000))", ""),
    ("headers", "jsonb_build_object('a', repeat('x', 70000))", "23514"),
    ("headers", "'[]'", "23514"),
    ("ordering_key", "repeat('x', 200)", ""),
    ("ordering_key", "repeat('x', 201)", "23514"),
    ("dedup_key", "''", "23514"),
];

/// Columns that only our functions write. The owner may, and still nobody else is stopped.
const OURS: &[(&str, &str)] = &[
    ("attempt", "2147483647"),
    ("retry_count", "2147483647"),
    ("crash_count", "2147483647"),
    ("redrive_count", "2147483647"),
    ("status, attempt, retry_count, crash_count, redrive_count", "'failed', 2147483647, 2147483647, 1, 2147483647"),
    ("status, owner, crash_count", "'processing', 'ghost', 2147483647"),
    ("status, owner, lease_until", "'processing', 'ghost', '-infinity'"),
    ("status", "'completed'"),
    ("error_message", "'forged'"),
    ("requeued_at", "'2000-01-01 UTC'"),
    ("id", "9223372036854775807"),
    ("id", "-9223372036854775808"),
];

fn insert(columns: &str, values: &str) -> String {
    format!(
        "insert into integration.data_staging (source_app, target_app, record_type, data, {columns}) \
         values ('shop', 'billing', 'order.placed', '{{}}', {values})"
    )
}

/// What everybody else does, after which nothing that can be claimed is left.
async fn everything_answers(consumer: &Client, watcher: &Client, operator: &Client, after: &str) {
    let lines = [
        (consumer, "select integration.register('b-1', 'h', 1, 'a', 'v', '{\"billing\": {\"capacity\": 1}}', 60000)"),
        (consumer, "select integration.rescue()"),
        (consumer, "select * from integration.next_due('{billing}')"),
        (
            consumer,
            "select integration.settle('b-1', array_agg(c.id), array_agg(c.attempt), array_agg(c.created_at), array_agg('retry'::text), \
            array_agg('no'::text), array_agg(0::bigint)) from integration.claim('billing', 'b-1', 1000) c",
        ),
        (consumer, "select c.id from integration.claim_suspect('billing', 'b-1') c"),
        (consumer, "select integration.promote('{billing}')"),
        (consumer, "select integration.hold('billing', 1000)"),
        (
            consumer,
            "select integration.complete_many('b-1', array_agg(c.id), array_agg(c.attempt), array_agg(c.created_at)) \
            from integration.claim('billing', 'b-1', 1000) c",
        ),
        (consumer, "select integration.deregister('b-1')"),
        (consumer, "select integration.maintain()"),
        (
            watcher,
            "select * from integration.stats; select * from integration.stuck; select * from integration.dead_letters",
        ),
        (watcher, "select e.* from integration.data_staging d cross join lateral integration.explain(d.id) e"),
        (
            watcher,
            "select * from integration.list(); select * from integration.list('pending'); \
            select * from integration.list('scheduled'); select * from integration.maintenance_due()",
        ),
        (
            watcher,
            "select * from integration.error_rates; select * from integration.wakeups; \
            select * from integration.target_states()",
        ),
        (
            operator,
            "select integration.redrive_many(array_agg(id)) from integration.data_staging where status = 'failed'",
        ),
        (operator, "select integration.cancel(array_agg(id)) from integration.data_staging"),
    ];
    for (client, sql) in lines {
        assert_eq!(answer(client, sql).await, "", "after {after}: {sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_stops_anybody_but_whoever_wrote_it() {
    let db = Database::new().await;
    let (publisher, consumer) = (role(&db, "publisher").await, role(&db, "consumer").await);
    let (watcher, operator, owner) = (role(&db, "watcher").await, role(&db, "operator").await, db.client().await);
    let mut wrong = Vec::new();
    for (columns, values, expected) in PUBLISHED {
        let answer = answer(&publisher, &insert(columns, values)).await;
        if answer != *expected {
            wrong.push(format!("{columns} = {values}: {answer:?}"));
        }
    }
    everything_answers(&consumer, &watcher, &operator, "what a publisher may write").await;
    for (columns, values) in OURS {
        let refused = answer(&publisher, &insert(columns, values)).await;
        if refused != "23514" {
            wrong.push(format!("{columns} = {values}: {refused:?}"));
        }
        // Many at a time are looked at one by one.
        let many = format!("{}, ('shop', 'ledger', 'order.placed', '{{}}', {values})", insert(columns, values));
        if columns != &"id" && answer(&publisher, &many).await != "23514" {
            wrong.push(format!("two of {columns} = {values}"));
        }
        assert_eq!(answer(&owner, &insert(columns, values)).await, "", "{columns} = {values}");
        everything_answers(&consumer, &watcher, &operator, &format!("{columns} = {values}")).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_one_application_can_write_no_more_extremes_than_a_publisher_and_stops_nobody_either() {
    let db = Database::new().await;
    let (consumer, watcher, operator) =
        (role(&db, "consumer").await, role(&db, "watcher").await, role(&db, "operator").await);
    let name = format!("shop_{}", db.name());
    let made = format!("create role {name} login; select integration.grant_app('shop', '{name}', '{{billing}}')");
    db.client().await.batch_execute(&made).await.unwrap();
    let shop = crate::support::connect(&db.url.replace("user=postgres", &format!("user={name}"))).await;
    // Columns that it has no right to set are refused before anything looks at what is in them.
    let granted = ["priority", "max_retries", "status, available_at", "headers", "ordering_key", "dedup_key"];
    let mut wrong = Vec::new();
    for (columns, values, expected) in PUBLISHED {
        let expected = if granted.contains(columns) { expected } else { "42501" };
        let answer = answer(&shop, &insert(columns, values)).await;
        if answer != expected {
            wrong.push(format!("{columns} = {values}: {answer:?}, not {expected:?}"));
        }
    }
    for (columns, values) in OURS {
        let expected = if *columns == "status" { "23514" } else { "42501" };
        let answer = answer(&shop, &insert(columns, values)).await;
        if answer != expected {
            wrong.push(format!("{columns} = {values}: {answer:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    everything_answers(&consumer, &watcher, &operator, "what a role of one application may write").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_come_from_the_sequence_and_a_payload_is_about_as_large_as_its_text() {
    let db = Database::new().await;
    let publisher = role(&db, "publisher").await;
    let ahead = insert("id", "100");
    assert_eq!(answer(&publisher, &ahead).await, "23514");
    assert_eq!(answer(&publisher, &insert("id", "nextval('integration.data_staging_id_seq')")).await, "");
    let bomb = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        select 'shop', 'billing', 'x', jsonb_agg(n.n) from (select 'NUMBER'::jsonb as n from generate_series(1, 100)) n";
    assert_eq!(answer(&publisher, &bomb.replace("NUMBER", "1e131000")).await, "23514");
    assert_eq!(answer(&publisher, &bomb.replace("NUMBER", "1e-16000")).await, "23514");
    assert_eq!(answer(&publisher, &bomb.replace("NUMBER", "1e308")).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_nobody_knows_are_forgotten_when_nothing_is_left_of_them() {
    let db = Database::new().await;
    let client = db.client().await;
    let names = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        select 'shop', 'name-' || n, 'x', '1' from generate_series(1, 100) n";
    client.batch_execute(names).await.unwrap();
    client.batch_execute("insert into integration.targets (target_app) values ('name-1')").await.unwrap();
    client.batch_execute("delete from integration.data_staging where target_app <> 'name-2'").await.unwrap();
    client.batch_execute("select integration.fold()").await.unwrap();
    let known = "select count(distinct target_app) from integration.stats";
    client.batch_execute("select integration.purge_expired()").await.unwrap();
    assert_eq!(count(&client, known).await, 100, "not before their traffic is");
    let later = "update integration.counters set changed_at = changed_at - interval '3 days'; \
        select integration.purge_expired()";
    client.batch_execute(later).await.unwrap();
    assert_eq!(count(&client, known).await, 2);
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    // One that is published to just then stays, with all that it ever had.
    let again = "select integration.publish('shop', 'name-2', 'x', '1'); delete from integration.data_staging; \
        select integration.fold(); update integration.counters set changed_at = changed_at - interval '3 days'; \
        select integration.publish('shop', 'name-2', 'x', '1'); select integration.purge_expired()";
    client.batch_execute(again).await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.totals where target_app = 'name-2'").await, 2);
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

/// What a hand with the right to change messages may write into one that waits; whatever is let through stops nobody else.
const BY_HAND: &[&str] = &[
    "created_at = 'infinity'",
    "created_at = '-infinity'",
    "updated_at = 'infinity'",
    "updated_at = '-infinity'",
    "status = 'scheduled', available_at = 'infinity'",
    "status = 'scheduled', available_at = '-infinity'",
    "status = 'scheduled', available_at = '294276-12-31'",
    "status = 'processing', owner = 'b-1', lease_until = 'infinity', crash_count = 2147483647",
    "status = 'processing', owner = '', attempt = 2147483647",
    "status = 'completed', processed_at = '-infinity'",
    "status = 'completed', processed_at = 'infinity'",
    "status = 'failed', error_message = repeat('x', 1000000), updated_at = '-infinity'",
    "retry_count = 2147483647, crash_count = 2147483647, redrive_count = 2147483647, max_retries = 2147483647",
    "crash_count = -5",
    "max_retries = -2147483648",
    "priority = -2147483648",
    "target_app = '', source_app = '', record_type = ''",
    "target_app = repeat('y', 1000), source_app = repeat('y', 1000), record_type = repeat('y', 1000)",
    "ordering_key = repeat('y', 1000000), dedup_key = repeat('y', 1000)",
    "headers = jsonb_build_object('a', repeat('x', 1000000))",
    "headers = '{\"a\": null, \"b\": [[1]], \"\": 1e400}'",
    "data = '1e131000'",
    "data = (select jsonb_agg('1e131000'::jsonb) from generate_series(1, 9000))",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_edit_by_hand_stops_anybody() {
    let db = Database::new().await;
    let consumer = role(&db, "consumer").await;
    let (watcher, operator, owner) = (role(&db, "watcher").await, role(&db, "operator").await, db.client().await);
    for (at, edit) in BY_HAND.iter().enumerate() {
        // At any level: what is told of an edit is not what refuses it.
        let level = ["off", "outcomes", "all"][at % 3];
        owner.execute("select integration.set_audit_level($1)", &[&level]).await.unwrap();
        let new = "insert into integration.data_staging (source_app, target_app, record_type, data) \
            values ('shop', 'billing', 'order.placed', '{}'), ('shop', 'billing', 'order.placed', '{}')";
        owner.batch_execute(new).await.unwrap();
        let sql = format!(
            "update integration.data_staging set {edit} where id = (select max(id) from integration.data_staging)"
        );
        let said = answer(&consumer, &sql).await;
        assert!(["", "23514", "54000"].contains(&said.as_str()), "{edit}: {said}");
        everything_answers(&consumer, &watcher, &operator, edit).await;
        let others = "select count(*) from integration.data_staging where target_app = 'billing' and status = 'pending' \
            and id < (select max(id) from integration.data_staging)";
        assert_eq!(count(&owner, others).await, 0, "after {edit} nothing else waits");
    }
}
