//! Maintenance: one at a time, in small batches, in nobody's way.

use doorbell::Broker;
use tokio_postgres::Client;

use crate::support::{Database, count, echo, listeners, plain_insert, soon, stop_the_clock, until, until_status};

/// Completed (by hand) so long ago that they are to be archived.
pub(crate) async fn old_messages(client: &Client, target: &str, many: i32) {
    let sql =
        "with gone as (insert into integration.data_staging (source_app, target_app, record_type, data, created_at)
            select 'erp', $1, 'n', '1', now() - interval '9 days' from generate_series(1, $2) returning id)
        select count(*) from gone";
    client.query_one(sql, &[&target, &many]).await.unwrap();
    let complete = "update integration.data_staging set status = 'completed', processed_at = now() - interval '8 days' where target_app = $1 and status = 'pending'";
    client.execute(complete, &[&target]).await.unwrap();
}

const LEFT: &str = "select count(*) from integration.data_staging";
pub(super) const ARCHIVED: &str = "select count(*) from integration.data_staging_archive";
const DUE: &str = "select coalesce(string_agg(task || ' ' || object || ' ' || count, ', ' order by task collate \"C\", object), '') from integration.maintenance_due()";

async fn due(client: &Client) -> String {
    client.query_one(DUE, &[]).await.unwrap().get(0)
}

/// A year ago: past every retention.
async fn old_partition(client: &Client) {
    client
        .batch_execute(
            "create table integration.audit_log_old partition of integration.audit_log for values from ('2020-01-01 UTC') to ('2020-02-01 UTC');
             insert into integration.audit_log (app_name, action, created_at) values ('x', 'claimed', '2020-01-15 UTC')",
        )
        .await
        .unwrap();
}

async fn maintain(broker: &Broker) -> doorbell::operate::Maintained {
    soon("maintenance ends", broker.operator().maintain()).await.unwrap()
}

#[tokio::test]
async fn one_leads_until_it_stops_asking() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "create table public.test_clock as select now() as at;
             create or replace function integration.clock() returns timestamptz language sql volatile
                 return (select c.at from public.test_clock c)",
        )
        .await
        .unwrap();
    let lead = async |name: &str| -> bool {
        client.query_one("select integration.lead($1, 10000)", &[&name]).await.unwrap().get(0)
    };
    let pass = async |seconds: f64| {
        client.execute("update public.test_clock set at = at + $1 * interval '1 s'", &[&seconds]).await.unwrap();
    };
    assert!(lead("one").await && !lead("two").await);
    pass(9.0).await;
    assert!(lead("one").await, "it goes on as long as it asks");
    pass(9.0).await;
    assert!(!lead("two").await);
    pass(2.0).await;
    assert!(lead("two").await && !lead("one").await);
    client.batch_execute("select integration.deregister('two')").await.unwrap();
    assert!(lead("one").await, "who leaves in order hands over at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_ask_at_once_one_leads() {
    let db = Database::new().await;
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..16 {
        let client = db.client().await;
        asking.spawn(async move {
            client.query_one("select integration.lead($1, 60000)", &[&format!("p{n}")]).await.unwrap().get::<_, bool>(0)
        });
    }
    let leaders = asking.join_all().await.into_iter().filter(|leads| *leads).count();
    assert_eq!(leaders, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_left_does_not_lead_however_late_its_question_comes() {
    let db = Database::new().await;
    let (client, other) = (db.client().await, db.client().await);
    let lead = "select integration.lead('one', 10000, true)";
    let leads = async |client: &Client| client.query_one(lead, &[]).await.unwrap().get::<_, bool>(0);
    assert!(!leads(&client).await, "it never came");
    client.batch_execute("select integration.register('one', 'host', 1, 'app', '0', '{}', 60000)").await.unwrap();
    // The question is under way while it leaves.
    other.batch_execute("begin").await.unwrap();
    assert!(leads(&other).await);
    let leaving = tokio::spawn(async move {
        client.batch_execute("select integration.deregister('one')").await.unwrap();
        client
    });
    let waits =
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
    until(&db.client().await, "it waits for the answer", waits).await;
    other.batch_execute("commit").await.unwrap();
    let client = leaving.await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.maintenance where leader is not null").await, 0);
    assert!(!leads(&client).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_processes_do_it_by_themselves_and_another_goes_on_when_one_leaves() {
    let db = Database::new().await;
    let client = db.client().await;
    let (one, two) = (db.broker().await, db.broker().await);
    let (first, _) = echo(&one, "billing").await;
    let led = "select count(*) = 1 from integration.maintenance m join integration.processes c on c.owner = m.leader";
    until(&client, "somebody leads", led).await;
    let (second, _) = echo(&two, "billing").await;
    old_messages(&client, "erp", 10).await;
    until(&client, "the first process folds counters", "select not exists (select from integration.deltas)").await;
    first.shutdown().await.unwrap();
    one.close().await;
    until(&client, "the other process leads", led).await;
    until(&client, "it archives", "select count(*) = 10 from integration.data_staging_archive").await;
    second.shutdown().await.unwrap();
    two.close().await;
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    assert_eq!(count(&client, "select count(*) from integration.maintenance where leader is not null").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_archived_in_transactions_of_a_thousand_at_most() {
    let db = Database::new().await;
    let client = db.client().await;
    old_messages(&client, "billing", 2500).await;
    plain_insert(&client, "billing", "1").await;
    let done = maintain(&db.broker().await).await;
    assert_eq!((done.archived, done.purged), (2500, 0));
    assert_eq!((count(&client, LEFT).await, count(&client, ARCHIVED).await), (1, 2500));
    let largest = "select max(n) from (select count(*) as n from integration.data_staging_archive group by xmin) t";
    assert!(count(&client, largest).await <= 1000);
    assert_eq!(
        count(
            &client,
            "select count(*) from integration.data_staging_archive where status = 'completed' and data = '1'"
        )
        .await,
        2500
    );
    // Below level 'all' that is not worth a line for each.
    assert_eq!(count(&client, "select count(*) from integration.audit_log where action = 'archived'").await, 0);
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    let total = "select sum(messages)::bigint from integration.current_totals where action = 'archived'";
    assert_eq!(count(&client, total).await, 2500);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_no_row_and_no_publisher_and_leaves_what_is_held_for_later() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    old_messages(&client, "billing", 20).await;
    let (holder, publisher) = (db.client().await, db.client().await);
    holder.batch_execute("begin; select from integration.data_staging where id <= 5 for update").await.unwrap();
    publisher.batch_execute("begin; select integration.publish('shop', 'billing', 'n', '1')").await.unwrap();
    assert_eq!(maintain(&broker).await.archived, 15);
    assert_eq!(count(&client, ARCHIVED).await, 15);
    holder.batch_execute("rollback").await.unwrap();
    publisher.batch_execute("commit").await.unwrap();
    assert_eq!(maintain(&broker).await.archived, 5);
    assert_eq!((count(&client, LEFT).await, count(&client, ARCHIVED).await), (1, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_an_old_partition_keeps_it_and_nobody_waits_for_that() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    old_partition(&client).await;
    let reader = db.client().await;
    reader.batch_execute("begin; select count(*) from integration.audit_log_old").await.unwrap();
    let (consumer, mut told) = echo(&broker, "billing").await;
    for n in 0..3 {
        let done = maintain(&broker).await;
        assert_eq!((done.partitions_dropped, done.partitions_busy), (0, 1));
        let id = plain_insert(&client, "billing", &n.to_string()).await;
        assert_eq!(told.next().await.id, id);
        until_status(&client, id, "completed").await;
    }
    // One that reads the whole log keeps all its partitions.
    reader.batch_execute("commit; begin; select count(*) from integration.audit_log").await.unwrap();
    assert_eq!(maintain(&broker).await.partitions_busy, 1);
    reader.batch_execute("commit").await.unwrap();
    assert_eq!(maintain(&broker).await.partitions_dropped, 1);
    assert_eq!(count(&client, "select count(*) from integration.old_partitions").await, 0);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_that_wrote_the_audit_log_is_in_the_way_of_dropping_only() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    old_partition(&client).await;
    let id = plain_insert(&client, "billing", "1").await;
    let writer = db.client().await;
    writer
        .batch_execute(&format!("begin; update integration.data_staging set status = 'cancelled' where id = {id}"))
        .await
        .unwrap();
    // It holds the parent, as every settle does for a moment.
    let done = maintain(&broker).await;
    assert_eq!((done.partitions_dropped, done.partitions_busy), (0, 1));
    let other = plain_insert(&client, "billing", "2").await;
    client.execute("update integration.data_staging set status = 'cancelled' where id = $1", &[&other]).await.unwrap();
    writer.batch_execute("commit").await.unwrap();
    assert_eq!(maintain(&broker).await.partitions_dropped, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_created_beside_writers_and_wait_for_no_reader() {
    let db = Database::new().await;
    let client = db.client().await;
    let month = "select 'integration.audit_log_' || to_char(now() at time zone 'UTC' + interval '1 month', 'YYYYMM')";
    let name: String = client.query_one(month, &[]).await.unwrap().get(0);
    client.batch_execute(&format!("drop table {name}")).await.unwrap();
    let (writer, reader) = (db.client().await, db.client().await);
    let id = plain_insert(&client, "billing", "1").await;
    writer
        .batch_execute(&format!("begin; update integration.data_staging set status = 'cancelled' where id = {id}"))
        .await
        .unwrap();
    reader.batch_execute("begin; select count(*) from integration.audit_log").await.unwrap();
    let create = "select integration.ensure_partitions()::bigint";
    assert_eq!(count(&client, create).await, 0, "a reader of the default partition is in the way");
    reader.batch_execute("commit").await.unwrap();
    assert_eq!(count(&client, create).await, 1, "a writer is not");
    writer.batch_execute("commit").await.unwrap();
    assert_eq!(count(&client, create).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_what_a_run_does_and_does_nothing() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    assert!(broker.operator().maintenance_due().await.unwrap().is_empty());
    old_messages(&client, "billing", 3).await;
    old_partition(&client).await;
    client
        .batch_execute(
            "select integration.publish('shop', 'billing', 'n', '1', p_delay => '1 us');
             select integration.publish('shop', 'billing', 'n', '1', p_dedup_key => 'a');
             update integration.dedup_keys set expires_at = now() - interval '1 s';
             select integration.publish('shop', 'lost', 'n', '1');
             select integration.claim('lost', 'dead', 1, p_lease => '-1 s');
             insert into integration.data_staging (source_app, target_app, record_type, data, status, created_at, updated_at)
             select 'shop', 'billing', 'n', '1', s, now() - interval '40 days', now() - interval '31 days'
               from unnest('{failed,cancelled}'::text[]) s;
             select integration.fold(); select integration.publish('shop', 'billing', 'n', '1')",
        )
        .await
        .unwrap();
    let everything = "select md5(string_agg(t::text, ',' order by t::text)) from (
        select d::text from integration.data_staging d union all select k::text from integration.dedup_keys k
        union all select a::text from integration.audit_log a union all select d::text from integration.deltas d
        union all select c.oid::text from pg_class c union all select m::text from integration.maintenance m) t";
    let before: String = client.query_one(everything, &[]).await.unwrap().get(0);
    let expected = "archive completed billing 3, drop partition audit_log_old 1, fold deltas 1, promote billing 1, \
        purge dedup_keys 1, purge outcomes 2, purge cancelled billing 1, purge failed billing 1, rescue lost 1";
    assert_eq!(due(&client).await, expected);
    let after: String = client.query_one(everything, &[]).await.unwrap().get(0);
    assert_eq!(before, after);
    let done = maintain(&broker).await;
    assert_eq!((done.rescued, done.promoted, done.folded, done.archived, done.purged), (1, 1, 1 + 4, 3, 2), "{done:?}");
    assert_eq!((done.expired, done.partitions_dropped), (3, 1), "{done:?}");
    let left = due(&client).await;
    assert!(left.starts_with("fold deltas") && !left.contains(','), "{left}");
    // What the database's own schedulers call does the same.
    client.batch_execute("select integration.maintain()").await.unwrap();
    assert_eq!(due(&client).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_with_nothing_due_among_many_reads_few_messages() {
    let db = Database::new().await;
    let client = db.client().await;
    let many = "insert into integration.data_staging (source_app, target_app, record_type, data, status, processed_at)
        select 'shop', 'billing', 'n', '1', 'completed', now() from generate_series(1, 20000)";
    client.batch_execute(many).await.unwrap();
    client.batch_execute("begin; select integration.maintain()").await.unwrap();
    let read = "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables \
        where relid = 'integration.data_staging'::regclass";
    assert!(count(&client, read).await <= 2000);
    client.batch_execute("commit").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_connections_die_comes_back_to_it() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let (consumer, _) = echo(&broker, "billing").await;
    until(&client, "it leads", "select leader is not null from integration.maintenance").await;
    assert!(!listeners(&client).await.is_empty());
    let others = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    assert!(count(&client, others).await > 0);
    plain_insert(&client, "nobody", "1").await;
    until(&client, "it folds again", "select not exists (select from integration.deltas)").await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn setting_the_audit_level_says_nothing() {
    let db = Database::new().await;
    let (client, mut connection) = tokio_postgres::connect(&db.url, tokio_postgres::NoTls).await.unwrap();
    let notices = tokio::spawn(async move {
        let mut notices = Vec::new();
        while let Some(Ok(message)) = futures::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let tokio_postgres::AsyncMessage::Notice(notice) = message {
                notices.push(notice.message().to_owned());
            }
        }
        notices
    });
    for level in ["all", "all", "off", "outcomes"] {
        client.query_one("select integration.set_audit_level($1)", &[&level]).await.unwrap();
    }
    drop(client);
    assert_eq!(notices.await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn who_died_while_nobody_looked_is_found_at_the_second_visit_not_at_the_first() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let beat = "select integration.beat('p', 15000)";
    stop_the_clock(&client, 0).await;
    let since_then = "update integration.contact set seen_at = integration.clock(), resumed_at = integration.clock()";
    client.execute(since_then, &[]).await.unwrap();
    stop_the_clock(&client, 10).await;
    client.execute("select integration.register('p', 'host', 1, 'app', '1', '{}', 15000)", &[]).await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    client.execute("select integration.claim('billing', 'p')", &[]).await.unwrap();
    stop_the_clock(&client, 30).await;
    client.execute(beat, &[]).await.unwrap();
    // Silent for longer than its lease, but so was everybody: the server may have been out of reach.
    stop_the_clock(&client, 60).await;
    assert_eq!(maintain(&broker).await.rescued, 0);
    stop_the_clock(&client, 120).await;
    assert_eq!(maintain(&broker).await.rescued, 1);
    assert_eq!(until_status(&client, id, "pending").await.crash_count, 1);
}
