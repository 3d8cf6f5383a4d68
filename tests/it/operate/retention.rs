//! Retention: how long messages stay, and that the tables stay small by it.

use doorbell::Broker;
use tokio_postgres::Client;

use crate::support::{Database, count, plain_insert, soon};

async fn set_clock(client: &Client, at: &str) {
    client
        .batch_execute(&format!(
            "create table if not exists public.test_clock (at timestamptz);
             truncate public.test_clock; insert into public.test_clock values ('{at}');
             create or replace function integration.clock() returns timestamptz language sql volatile
                 return (select c.at from public.test_clock c)"
        ))
        .await
        .unwrap();
}

async fn pass(client: &Client, time: &str) {
    client.batch_execute(&format!("update public.test_clock set at = at + interval '{time}'")).await.unwrap();
}

async fn maintain(broker: &Broker) -> (usize, usize) {
    let done = soon("maintenance ends", broker.operator().maintain()).await.unwrap();
    (done.archived, done.purged)
}

/// A message of the target that ended as the status says, now.
async fn ended(client: &Client, target: &str, status: &str) -> i64 {
    let id = plain_insert(client, target, "1").await;
    let sql = "update integration.data_staging set status = $2 where id = $1";
    client.execute(sql, &[&id, &status]).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_messages_stay_as_long_as_their_target_says() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    set_clock(&client, "2030-01-01 UTC").await;
    client
        .batch_execute(
            "insert into integration.targets (target_app, completed_retention, failed_retention) values ('brief', '1 h', '2 h'), ('long', '40 days', '50 days')",
        )
        .await
        .unwrap();
    for target in ["brief", "long", "usual"] {
        for status in ["completed", "failed", "cancelled"] {
            ended(&client, target, status).await;
        }
    }
    let waits = plain_insert(&client, "usual", "1").await;
    let left = "select coalesce(string_agg(target_app || ' ' || status, ', ' order by target_app, status), '') from integration.data_staging where id <> $1";
    let left = async || -> String { client.query_one(left, &[&waits]).await.unwrap().get(0) };
    pass(&client, "59 min").await;
    assert_eq!(maintain(&broker).await, (0, 0));
    pass(&client, "1 min").await;
    assert_eq!(maintain(&broker).await, (1, 0), "{}", left().await);
    pass(&client, "1 h").await;
    assert_eq!(maintain(&broker).await, (0, 2), "{}", left().await);
    pass(&client, "6 days 22 h").await;
    assert_eq!(maintain(&broker).await, (1, 0), "{}", left().await);
    pass(&client, "23 days").await;
    assert_eq!(maintain(&broker).await, (0, 2));
    assert_eq!(left().await, "long cancelled, long completed, long failed");
    pass(&client, "20 days").await;
    assert_eq!(maintain(&broker).await, (1, 2));
    assert_eq!(left().await, "");
    assert_eq!(count(&client, "select count(*) from integration.data_staging_archive").await, 3);
    let purged =
        "select count(*) from integration.audit_log where action = 'purged' and old_status in ('failed', 'cancelled')";
    assert_eq!(count(&client, purged).await, 6, "what did not succeed leaves a line when it goes");
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_plain_sql_completes_goes_where_its_target_sends_it() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let targets = "insert into integration.targets (target_app, on_complete) values ('archives', 'archive'), ('deletes', 'delete')";
    client.batch_execute(targets).await.unwrap();
    let archived = ended(&client, "archives", "completed").await;
    for (target, status) in
        [("deletes", "completed"), ("keeps", "completed"), ("archives", "failed"), ("deletes", "failed")]
    {
        ended(&client, target, status).await;
    }
    assert_eq!(maintain(&broker).await, (1, 1));
    let left = "select string_agg(target_app || ' ' || status, ', ' order by id) from integration.data_staging";
    let left: String = client.query_one(left, &[]).await.unwrap().get(0);
    assert_eq!(left, "keeps completed, archives failed, deletes failed");
    assert_eq!(count(&client, "select id from integration.data_staging_archive").await, archived);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_put_back_in_time_is_not_purged() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    set_clock(&client, "2030-01-01 UTC").await;
    let (redriven, failed) = (ended(&client, "billing", "failed").await, ended(&client, "billing", "failed").await);
    pass(&client, "40 days").await;
    client.execute("select integration.redrive($1::bigint)", &[&redriven]).await.unwrap();
    assert_eq!(maintain(&broker).await, (0, 1));
    assert_eq!(count(&client, "select id from integration.data_staging").await, redriven);
    assert!(failed > redriven);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_default_partitions_go_past_retention_too() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    client
        .batch_execute(
            "insert into integration.audit_log (app_name, action, created_at) values ('x', 'claimed', now() - interval '95 days'), ('x', 'claimed', now() - interval '80 days');
             insert into integration.data_staging_archive (id, source_app, target_app, record_type, data, status, priority, retry_count, created_at, updated_at, processed_at, attempt, crash_count, redrive_count, requeued_at)
             select g, 's', 't', 'n', '1', 'completed', 0, 0, now(), now(), now() - g * interval '1 day', 1, 0, 0, null from unnest('{170,190}'::integer[]) g",
        )
        .await
        .unwrap();
    assert_eq!(soon("maintenance ends", broker.operator().maintain()).await.unwrap().expired, 2);
    assert_eq!(count(&client, "select id from integration.data_staging_archive").await, 170);
    assert_eq!(count(&client, "select count(*) from integration.audit_log").await, 1);
}

/// Bytes and rows of what grows.
const SIZES: &str = "select
    pg_table_size('integration.data_staging'), pg_indexes_size('integration.data_staging'), (select count(*) from integration.data_staging),
    (select coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint from pg_inherits where inhparent = 'integration.data_staging_archive'::regclass),
    (select count(*) from integration.data_staging_archive),
    (select coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint from pg_inherits where inhparent = 'integration.audit_log'::regclass),
    (select count(*) from integration.audit_log),
    pg_total_relation_size('integration.deltas') + pg_total_relation_size('integration.counters') + pg_total_relation_size('integration.totals')
        + pg_total_relation_size('integration.traffic') + pg_total_relation_size('integration.outcomes'),
    (select count(*) from integration.traffic)";

async fn print_sizes(client: &Client, when: &str) {
    let row = client.query_one(SIZES, &[]).await.unwrap();
    let of = |at: usize| row.get::<_, i64>(at);
    println!(
        "{when:>24}: table {:>6} KiB, indexes {:>6} KiB, {:>6} rows; archive {:>7} KiB, {:>6} rows; audit {:>7} KiB, {:>6} rows; counters {:>5} KiB, {} rows of traffic",
        of(0) >> 10,
        of(1) >> 10,
        of(2),
        of(3) >> 10,
        of(4),
        of(5) >> 10,
        of(6),
        of(7) >> 10,
        of(8)
    );
}

/// A day: most messages are completed, one in a hundred fails, a few are cancelled or wait.
async fn one_day(client: &Client, messages: i64) {
    for hour in 0..24 {
        let many = messages * (hour + 1) / 24 - messages * hour / 24;
        client
            .batch_execute(&format!(
                "insert into integration.data_staging (source_app, target_app, record_type, data)
                 select 's' || g % 3, (array['billing', 'shipping'])[1 + g % 2], 'order.placed',
                        jsonb_build_object('order', g, 'note', repeat('x', 300)) from generate_series(1, {many}) g;
                 do $do$
                 declare v_ids bigint[]; v_attempts integer[]; v_created timestamptz[]; v_target text;
                 begin
                     foreach v_target in array '{{billing,shipping}}'::text[] loop
                         loop
                             select array_agg(c.id), array_agg(c.attempt), array_agg(c.created_at) into v_ids, v_attempts, v_created
                               from integration.claim(v_target, 'me', 100, p_lease => '1 h') c;
                             exit when v_ids is null;
                             perform integration.reject(id, 1, 'me', 'no such card') from unnest(v_ids) id where id % 100 = 0;
                             perform integration.cancel(array[id]) from unnest(v_ids) id where id % 333 = 1;
                             perform integration.complete_many('me', v_ids, v_attempts, v_created);
                         end loop;
                     end loop;
                 end $do$"
            ))
            .await
            .unwrap();
        pass(client, "1 h").await;
    }
}

/// `DOORBELL_RETENTION_PER_DAY=20000 cargo test --test it retention::thirty -- --nocapture` prints a realistic one, with the
/// periods of a fresh installation, and what happens without maintenance.
#[tokio::test(flavor = "multi_thread")]
async fn thirty_days_of_traffic_leave_the_tables_small() {
    let realistic: Option<i64> = std::env::var("DOORBELL_RETENTION_PER_DAY").ok().map(|n| n.parse().expect("a number"));
    let messages = realistic.unwrap_or(120);
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    if realistic.is_none() {
        client
            .batch_execute("update integration.settings set archive_retention = '10 days', audit_retention = '10 days'")
            .await
            .unwrap();
    }
    set_clock(&client, "2030-01-20 UTC").await;
    // Years pass: the partitions that the migration made are past retention.
    broker.operator().maintain().await.unwrap();
    let (mut dropped, mut purged) = (0, 0);
    for day in 1..=30 {
        one_day(&client, messages).await;
        let done = broker.operator().maintain().await.unwrap();
        dropped += done.partitions_dropped;
        purged += done.purged as i64;
        // Thirty days in a minute are too fast for autovacuum, which looks once a minute.
        client
            .batch_execute(
                "vacuum integration.data_staging, integration.deltas, integration.traffic, integration.outcomes",
            )
            .await
            .unwrap();
        if realistic.is_some() && [1, 7, 8, 14, 21, 30].contains(&day) {
            print_sizes(&client, &format!("with retention, day {day}")).await;
        }
    }
    // Seven days of completed messages, thirty of the others, and not a day more.
    let young = "select count(*) from integration.data_staging where status = 'completed' and processed_at > integration.clock() - interval '7 days 1 hour'";
    let completed = count(&client, "select count(*) from integration.data_staging where status = 'completed'").await;
    assert_eq!(completed, count(&client, young).await);
    assert!(completed <= messages * 7 && completed > messages * 6, "{completed} are left");
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    let rows = "select (select count(*) from integration.data_staging) + (select count(*) from integration.data_staging_archive)";
    assert_eq!(
        count(
            &client,
            "select count(*) from integration.traffic where minute < integration.clock() - interval '2 days 1 hour'"
        )
        .await,
        0
    );
    if realistic.is_some() {
        assert_eq!(count(&client, rows).await + purged, messages * 30, "nothing got lost on its way");
        print_without_retention(messages).await;
        return;
    }
    assert_eq!(dropped, 2, "January went whole, from the audit log and from the archive");
    let oldest = "select count(*) from integration.data_staging_archive where processed_at < '2030-02-01 UTC'";
    assert_eq!(count(&client, oldest).await, 0);
}

async fn print_without_retention(messages: i64) {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    set_clock(&client, "2030-01-20 UTC").await;
    client.query("select integration.ensure_partitions()", &[]).await.unwrap();
    for _ in 1..=30 {
        one_day(&client, messages).await;
        client.query("select integration.fold()", &[]).await.unwrap();
        client.batch_execute("vacuum integration.data_staging, integration.deltas").await.unwrap();
    }
    print_sizes(&client, "without, day 30").await;
    let done = broker.operator().maintain().await.unwrap();
    client.batch_execute("vacuum integration.data_staging, integration.deltas").await.unwrap();
    print_sizes(&client, &format!("after archiving {}", done.archived)).await;
}
