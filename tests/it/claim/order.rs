//! Claiming: exact limits, one owner per attempt, a strict order, and the index that makes it cheap.

use std::{collections::HashSet, time::Duration};

use doorbell::{ConsumerConfig, Message, Outcome};
use tokio_postgres::Client;

use crate::support::{Database, HOUR, count, plain_insert, until_count};

const INSERT: &str = "insert into integration.data_staging (source_app, target_app, record_type, data, priority) \
    select 'psql', 'billing', 'n', to_jsonb(n), n % 3 from generate_series(1, $1::int) n";

async fn insert(client: &Client, many: i32) {
    client.execute(INSERT, &[&many]).await.unwrap();
}

/// Claims as an owner that has no process, with a lease of its own.
async fn claim(client: &Client, owner: &str, limit: i32) -> Vec<(i64, i32)> {
    let sql = "select id, attempt from integration.claim('billing', $1, $2, p_lease => interval '1 hour')";
    let rows = client.query(sql, &[&owner, &limit]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_holds_whatever_plan_the_statistics_suggest() {
    let db = Database::new().await;
    let client = db.client().await;
    let one_row = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        values ('psql', 'billing', 'n', '1'); analyze integration.data_staging";
    let none_pending = "insert into integration.data_staging (source_app, target_app, record_type, data, status) \
        select 'psql', 'billing', 'n', '1', 'completed' from generate_series(1, 5000); analyze integration.data_staging";
    for statistics in [one_row, none_pending] {
        for plan in ["hashjoin", "mergejoin", "nestloop", "indexscan", "material", "sort"] {
            client.batch_execute("truncate integration.data_staging").await.unwrap();
            client.batch_execute(statistics).await.unwrap();
            insert(&client, 20).await;
            // A new session has no plan yet.
            let session = db.client().await;
            session.batch_execute(&format!("set enable_{plan} = off")).await.unwrap();
            for limit in [1, 5, 0, -1] {
                let claimed = claim(&session, "me", limit).await.len();
                assert_eq!(claimed, limit.max(0) as usize, "limit {limit} without {plan} after {statistics}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_claimers_at_once_get_every_message_once() {
    let db = Database::new().await;
    let client = db.client().await;
    insert(&client, 5000).await;
    let claimers = (0..16).map(async |n| {
        let client = db.client().await;
        let mut mine = Vec::new();
        loop {
            let batch = claim(&client, &format!("claimer {n}"), 1 + n % 7).await;
            // Nothing may also mean that others have locked what there is.
            if batch.is_empty()
                && count(&client, "select count(*) from integration.data_staging where status = 'pending'").await == 0
            {
                return mine;
            }
            mine.extend(batch);
        }
    });
    let all: Vec<(i64, i32)> = futures::future::join_all(claimers).await.concat();
    assert_eq!(all.len(), 5000);
    assert!(all.iter().all(|(_, attempt)| *attempt == 1));
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 5000);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_claimed_by_priority_then_age_then_id() {
    let db = Database::new().await;
    let client = db.client().await;
    let insert = "insert into integration.data_staging (id, source_app, target_app, record_type, data, priority, created_at) \
        values (1, 'a', 'billing', 'n', '1', -2147483648, '2000-01-01'), (2, 'a', 'billing', 'n', '1', 0, '2020-01-02'), \
               (3, 'a', 'billing', 'n', '1', 2147483647, '2030-01-01'), (4, 'a', 'billing', 'n', '1', 0, '2020-01-01'), \
               (6, 'a', 'billing', 'n', '1', 0, '2020-01-02'), (5, 'a', 'billing', 'n', '1', 0, '2020-01-02')";
    client.execute(insert, &[]).await.unwrap();
    let mut order = Vec::new();
    for limit in [2, 3, 10] {
        order.extend(claim(&client, "me", limit).await.into_iter().map(|(id, _)| id));
    }
    assert_eq!(order, [3, 4, 2, 5, 6, 1]);
}

/// About ten thousand bytes that do not compress.
const TEN_KB: &str = "(select to_jsonb(string_agg(md5(n::text), '')) from generate_series(1, 312) n)";

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_bounded_by_the_bytes_of_its_payloads() {
    let db = Database::new().await;
    let client = db.client().await;
    for _ in 0..10 {
        let insert = format!(
            "insert into integration.data_staging (source_app, target_app, record_type, data) values ('a', 'billing', 'n', {TEN_KB})"
        );
        client.execute(&insert, &[]).await.unwrap();
    }
    let claimed = async |bytes: i64| {
        let sql = "select count(*) from integration.claim('billing', 'me', 100, null, '1 hour', $1)";
        client.query_one(sql, &[&bytes]).await.unwrap().get::<_, i64>(0)
    };
    assert_eq!(claimed(25_000).await, 3);
    assert_eq!(claimed(1).await, 1, "one is always claimed");
    assert_eq!(claimed(i64::MAX).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_claims_are_cut_by_bytes_goes_on_until_nothing_is_left() {
    let db = Database::new().await;
    let client = db.client().await;
    let config = ConsumerConfig { sweep: HOUR, claim_bytes_max: 25_000, ..Default::default() };
    let consumer = db.broker().await.consumer("billing").config(config).fallback(|_| async { Ok(Outcome::Done) });
    let insert = format!(
        "insert into integration.data_staging (source_app, target_app, record_type, data) \
         select 'a', 'billing', 'n', {TEN_KB} from generate_series(1, 20)"
    );
    client.execute(&insert, &[]).await.unwrap();
    let consumer = consumer.start().await.unwrap();
    until_count(&client, "completed", 20).await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_leaves_record_types_that_it_does_not_accept() {
    let db = Database::new().await;
    let client = db.client().await;
    let types = Some(vec!["order".to_owned(), "refund".to_owned()]);
    let config = ConsumerConfig { sweep: HOUR, record_types: types, ..Default::default() };
    let consumer = db.broker().await.consumer("billing").config(config).fallback(|_| async { Ok(Outcome::Done) });
    let consumer = consumer.start().await.unwrap();
    let producer = db.broker().await.producer("shop");
    for record_type in ["invoice", "order", "invoice", "refund"] {
        producer.publish(&Message::new("billing", record_type, &1).unwrap()).await.unwrap();
    }
    until_count(&client, "completed", 2).await;
    consumer.shutdown().await.unwrap();
    let left = "select count(*) from integration.data_staging where status = 'pending' and record_type = 'invoice' and attempt = 0";
    assert_eq!(count(&client, left).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_claimed_while_the_target_is_paused() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    insert(&client, 3).await;
    plain_insert(&client, "other", "1").await;
    broker.operator().pause("billing", Some("month's end"), None).await.unwrap();
    assert!(claim(&client, "me", 10).await.is_empty());
    assert_eq!(
        count(&client, "select count(*) from integration.claim('other', 'me', 1, p_lease => '1 hour')").await,
        1
    );
    assert!(broker.operator().resume("billing").await.unwrap());
    assert!(!broker.operator().resume("billing").await.unwrap());
    assert_eq!(claim(&client, "me", 10).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_registered_consumer_claims_without_a_lease_of_its_own() {
    let db = Database::new().await;
    let client = db.client().await;
    insert(&client, 1).await;
    let error = client.execute("select integration.claim('billing', 'nobody')", &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "MQ001");
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'pending'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_verb_on_the_way_of_a_message_reads_the_whole_table() {
    let db = Database::new().await;
    let client = db.client().await;
    let scans = async || {
        client.execute("select pg_stat_force_next_flush()", &[]).await.unwrap();
        count(&client, "select seq_scan from pg_stat_user_tables where relname = 'data_staging'").await
    };
    // Plans made while the table is empty are kept by the session.
    claim(&client, "me", 1).await;
    insert(&client, 10_000).await;
    client.batch_execute("analyze integration.data_staging").await.unwrap();
    let before = scans().await;
    for _ in 0..10 {
        let claimed = claim(&client, "me", 50).await;
        let (ids, attempts): (Vec<i64>, Vec<i32>) = claimed.into_iter().unzip();
        assert_eq!(ids.len(), 50);
        let created = "(select array_agg(d.created_at order by k.at) from unnest($1::bigint[]) with ordinality k (id, at) \
            join integration.data_staging d using (id))";
        client
            .execute(
                &format!("select integration.complete_many('me', $1::bigint[], $2, {created})"),
                &[&&ids[..25], &&attempts[..25]],
            )
            .await
            .unwrap();
        let snooze = format!(
            "select integration.settle('me', $1, $2, {created}, array_fill('snooze'::text, array[25]), \
             array_fill(null::text, array[25]), array_fill(0::bigint, array[25]))"
        );
        client.execute(&snooze, &[&&ids[25..], &&attempts[25..]]).await.unwrap();
        assert_eq!(count(&client, "select integration.promote('{billing}')::bigint").await, 25);
        client.execute("select integration.has_suspects('billing')", &[]).await.unwrap();
        client.execute("select integration.claim_suspect('billing', 'me', p_lease => '1 hour')", &[]).await.unwrap();
        client.execute("select integration.rescue()", &[]).await.unwrap();
        client.execute("select integration.next_due('{billing}')", &[]).await.unwrap();
    }
    assert_eq!(scans().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_waits_for_nobody() {
    let db = Database::new().await;
    let mut client = db.client().await;
    insert(&client, 3).await;
    let tx = client.transaction().await.unwrap();
    let locked = tx.query("select id from integration.data_staging order by id limit 2 for update", &[]).await.unwrap();
    let other = db.client().await;
    other.batch_execute("set lock_timeout = '1ms'").await.unwrap();
    let free = claim(&other, "me", 10).await;
    assert_eq!(free.len(), 1);
    assert!(locked.iter().all(|row| row.get::<_, i64>(0) != free[0].0));
    tx.rollback().await.unwrap();
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), claim(&other, "me", 10)).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_that_only_look_expensive_are_not_compiled() {
    let client = Database::new().await.client().await;
    let compiled = "select count(*) from pg_proc where pronamespace = 'integration'::regnamespace \
        and 'enable_seqscan=off' = any (proconfig) and not 'jit=off' = any (proconfig)";
    assert_eq!(count(&client, compiled).await, 0);
}
