//! Where looks begin: nothing is missed behind the place, and what lies before it costs nothing.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use doorbell::{Broker, Consumer, ConsumerConfig, MessageId, Outcome};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio_postgres::Client;

use crate::support::{Database, HOUR, bells_only, count, echo, message, plain_insert, seen, until, until_count};

type Runs = Arc<Mutex<Vec<(MessageId, i32)>>>;

/// A consumer that notes every run; some fail and come back at once.
async fn noting(broker: &Broker, runs: &Runs) -> Consumer {
    let runs = runs.clone();
    let sweep = Some(Duration::from_millis(200));
    let consumer = broker.consumer("billing").config(ConsumerConfig { sweep, ..ConsumerConfig::default() }).fallback(
        move |delivery| {
            runs.lock().unwrap().push((delivery.id, delivery.attempt));
            async move {
                Ok(match (delivery.id % 10, delivery.retry_count) {
                    (3, 0) => Outcome::retry_after(Duration::ZERO, "the first time"),
                    _ => Outcome::Done,
                })
            }
        },
    );
    consumer.start().await.unwrap()
}

const INSERT: &str = "insert into integration.data_staging (source_app, target_app, record_type, data, priority, created_at) \
    values ('shop', 'billing', 'n', '1', $1, integration.clock() - $2::bigint * interval '1 ms') returning id";

/// Publishes as foreign applications do: at once, late, never, of any priority, dated back; and edits by hand.
async fn disturb(client: &mut Client, seed: u64) -> Vec<MessageId> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut published = Vec::new();
    for _ in 0..150 {
        let priority = if random.random_bool(0.1) { random.random_range(-50..50) } else { random.random_range(0..3) };
        let back_ms: i64 = if random.random_bool(0.1) { random.random_range(0..100_000) } else { 0 };
        let tx = client.transaction().await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..random.random_range(1..4) {
            ids.push(tx.query_one(INSERT, &[&priority, &back_ms]).await.unwrap().get::<_, i64>(0));
            if random.random_bool(0.2) {
                // Late: the server does something else before the commit.
                tx.batch_execute("select count(*) from generate_series(1, 20000)").await.unwrap();
            }
        }
        if random.random_bool(0.1) {
            tx.rollback().await.unwrap();
        } else {
            tx.commit().await.unwrap();
            published.extend(ids);
        }
        if random.random_bool(0.1) && !published.is_empty() {
            let id = published[random.random_range(0..published.len())];
            let edit = match random.random_range(0..3) {
                0 => {
                    "update integration.data_staging set status = 'pending' where id = $1 and status in ('completed', 'failed')"
                }
                1 => "update integration.data_staging set priority = priority + 1 where id = $1 and status = 'pending'",
                _ => {
                    "update integration.data_staging set created_at = created_at - interval '1 h' where id = $1 and status = 'pending'"
                }
            };
            client.execute(edit, &[&id]).await.unwrap();
        }
    }
    published
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_handled_once_an_attempt_however_late_or_old_it_comes() {
    let seed: u64 =
        std::env::var("DOORBELL_MARKS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("DOORBELL_MARKS_SEED={seed}");
    let db = Database::new().await;
    let client = db.client().await;
    // Nothing is vacuumed while this snapshot is open.
    let pin = db.client().await;
    pin.batch_execute("begin isolation level repeatable read; select count(*) from integration.data_staging")
        .await
        .unwrap();
    let runs = Runs::default();
    let (one, two, three) = (db.broker().await, db.broker().await, db.broker().await);
    let consumers = [noting(&one, &runs).await, noting(&two, &runs).await, noting(&three, &runs).await];
    let producers = (0..4u64).map(|n| {
        let db = &db;
        async move { disturb(&mut db.client().await, seed.wrapping_add(n)).await }
    });
    let published: Vec<MessageId> = futures::future::join_all(producers).await.concat();
    let rest = "select not exists (select from integration.data_staging where status <> 'completed')";
    until(&client, "everything is completed", rest).await;
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
    let runs = runs.lock().unwrap();
    let distinct: HashSet<_> = runs.iter().collect();
    assert_eq!(distinct.len(), runs.len(), "an attempt was handled twice");
    let handled: HashSet<MessageId> = runs.iter().map(|run| run.0).collect();
    assert!(published.iter().all(|id| handled.contains(id)));
    assert!(published.len() > 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_dated_back_is_found_by_its_bell_behind_the_place() {
    let db = Database::new().await;
    let client = db.client().await;
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    for n in 0..20 {
        plain_insert(&client, "billing", &n.to_string()).await;
        told.next().await;
    }
    let id: i64 = client.query_one(INSERT, &[&0i32, &86_400_000i64]).await.unwrap().get(0);
    assert_eq!(told.next().await.id, id);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_pending_again_is_found_behind_the_place() {
    let db = Database::new().await;
    let client = db.client().await;
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    let first = plain_insert(&client, "billing", "0").await;
    for n in 1..20 {
        plain_insert(&client, "billing", &n.to_string()).await;
    }
    told.take(20).await;
    until_count(&client, "completed", 20).await;
    for again in [
        "select integration.redrive($1::bigint)",
        "update integration.data_staging set status = 'pending' where id = $1",
    ] {
        client.execute(again, &[&first]).await.unwrap();
        assert_eq!(told.next().await.id, first);
        until_count(&client, "completed", 20).await;
    }
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_low_priority_gets_its_share_of_a_backlog_of_high_ones() {
    let db = Database::new().await;
    let broker = db.broker().await;
    let high: Vec<_> = (0..400).map(|n| message("billing", n).priority(5)).collect();
    let low: Vec<_> = (0..5).map(|n| message("billing", 1000 + n)).collect();
    broker.producer("shop").publish_many(&high).await.unwrap();
    broker.producer("shop").publish_many(&low).await.unwrap();
    let (tell, mut told) = seen();
    let config = ConsumerConfig { concurrency: 1, prefetch: Some(0), sweep: HOUR, ..ConsumerConfig::default() };
    let consumer = broker.consumer("billing").config(config).fallback(move |delivery| {
        let _ = tell.send(delivery.priority);
        async { Ok(Outcome::Done) }
    });
    let consumer = consumer.start().await.unwrap();
    let first: Vec<i32> = told.take(100).await;
    // One batch in seventeen begins with the lowest.
    assert_eq!(first.iter().filter(|priority| **priority == 0).count(), 5);
    assert!(first[..16].iter().all(|priority| *priority == 5));
    consumer.shutdown().await.unwrap();
}

/// Shared buffers that a claim of twenty touches; it is rolled back.
async fn buffers(client: &Client, ranges: &str) -> i64 {
    buffers_of(client, &format!("integration.claim('billing', 'x', 20, null, '1 min', 16777216{ranges})")).await
}

/// The same, to hold twenty.
async fn held_buffers(client: &Client, ranges: &str) -> i64 {
    buffers_of(client, &format!("integration.hold('billing', 20, null, 16777216{ranges})")).await
}

async fn buffers_of(client: &Client, look: &str) -> i64 {
    let sql = format!("begin; explain (analyze, buffers, format json, timing off) select * from {look}; rollback");
    let rows = client.simple_query(&sql).await.unwrap();
    let plan = rows.iter().find_map(|row| match row {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let plan: serde_json::Value = serde_json::from_str(plan.unwrap()).unwrap();
    plan[0]["Plan"]["Shared Hit Blocks"].as_i64().unwrap() + plan[0]["Plan"]["Shared Read Blocks"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_from_a_place_costs_the_same_when_the_horizon_is_pinned() {
    let db = Database::new().await;
    let client = db.client().await;
    let fill = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        select 'shop', 'billing', 'n', to_jsonb(n) from generate_series(1, 20000) n";
    client.batch_execute(fill).await.unwrap();
    client.batch_execute("vacuum analyze integration.data_staging").await.unwrap();
    buffers(&client, "").await;
    let fresh = buffers(&client, "").await;
    let ranges =
        ", '{1,0,-2147483648}', '{2147483647,0,-1}', array[null,'2000-01-01',null]::timestamptz[], array[0,0,0]";
    let in_ranges = buffers(&client, ranges).await;
    assert!(in_ranges <= 2 * fresh, "{in_ranges} buffers to learn that other ranges are empty, {fresh} without");
    held_buffers(&client, ranges).await;
    let fresh_held = held_buffers(&client, ranges).await;
    let pin = db.client().await;
    pin.batch_execute("begin isolation level repeatable read; select count(*) from integration.data_staging")
        .await
        .unwrap();
    let drain = "with c as materialized (select array_agg(id) as ids, array_agg(attempt) as attempts, array_agg(created_at) as created \
        from integration.claim('billing', 'x', 1000, null, '1 min')) \
        select count(*) from c, integration.complete_many('x', c.ids, c.attempts, c.created)";
    for _ in 0..15 {
        assert_eq!(count(&client, drain).await, 1000);
    }
    let place = "select format(', ''{1,0,-2147483648}'', ''{2147483647,0,-1}'', array[null,%L,null]::timestamptz[], array[0,%s,0]', \
        max(created_at), max(id)) from integration.data_staging where status = 'completed'";
    let place: String = client.query_one(place, &[]).await.unwrap().get(0);
    let (from_place, from_beginning) = (buffers(&client, &place).await, buffers(&client, "").await);
    let held = held_buffers(&client, &place).await;
    assert!(
        held <= fresh_held + fresh_held / 2,
        "{held} buffers to hold from the place, {fresh_held} in a fresh queue"
    );
    let all = held_buffers(&client, "").await;
    assert!(all > held + fresh_held, "the pin does not pin: {all} buffers to hold from the beginning, {held}");
    println!("fresh {fresh}, from the place {from_place}, from the beginning {from_beginning}");
    assert!(
        from_place <= 2 * fresh,
        "{from_place} buffers from the place, {fresh} from the beginning of a fresh queue"
    );
    assert!(from_beginning > from_place + fresh / 2, "the pin does not pin: {from_beginning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_pending_again_costs_the_same_when_the_horizon_is_pinned() {
    let db = Database::new().await;
    let client = db.client().await;
    let fill = "insert into integration.data_staging (source_app, target_app, record_type, data, status, available_at) \
        select 'shop', 'billing', 'n', to_jsonb(n), 'scheduled', integration.clock() from generate_series(1, 20000) n";
    client.batch_execute(fill).await.unwrap();
    // All of it is behind this place.
    let place = "select format(', ''{1,0,-2147483648}'', ''{2147483647,0,-1}'', array[null,%L,null]::timestamptz[], array[0,0,0], \
        array[null,%s,null]::timestamptz[], array[0,%s,0]', integration.clock(), $1::text, $2::text)";
    let beginning: String = client.query_one(place, &[&"null", &"0"]).await.unwrap().get(0);
    while count(&client, "select integration.promote('{billing}', 1000)::bigint").await > 0 {}
    client.batch_execute("vacuum analyze integration.data_staging").await.unwrap();
    buffers(&client, &beginning).await;
    let fresh = buffers(&client, &beginning).await;
    let pin = db.client().await;
    pin.batch_execute("begin isolation level repeatable read; select count(*) from integration.data_staging")
        .await
        .unwrap();
    let drain = format!(
        "with c as materialized (select array_agg(id) as ids, array_agg(attempt) as attempts, array_agg(created_at) as created \
        from integration.claim('billing', 'x', 1000, null, '1 min', 16777216{beginning})) \
        select count(*) from c, integration.complete_many('x', c.ids, c.attempts, c.created)"
    );
    for _ in 0..15 {
        assert_eq!(count(&client, &drain).await, 1000);
    }
    let last = "select quote_literal(requeued_at), id::text from integration.data_staging where status = 'completed' \
        order by requeued_at desc, id desc limit 1";
    let last = client.query_one(last, &[]).await.unwrap();
    let (at, id): (String, String) = (last.get(0), last.get(1));
    let from_place: String = client.query_one(place, &[&at, &id]).await.unwrap().get(0);
    let (from_place, from_beginning) = (buffers(&client, &from_place).await, buffers(&client, &beginning).await);
    println!("fresh {fresh}, from the place {from_place}, from the beginning {from_beginning}");
    assert!(from_place <= fresh + fresh / 4, "{from_place} buffers from the place, {fresh} in a fresh queue");
    assert!(from_beginning > from_place + fresh / 2, "the pin does not pin: {from_beginning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn places_move_whatever_is_open_elsewhere_but_not_over_what_a_writer_may_still_commit() {
    let (db, elsewhere) = (Database::new().await, Database::new().await);
    let (client, mut writer) = (db.client().await, db.client().await);
    client.batch_execute("create table mine (n integer)").await.unwrap();
    let (stranger, other) = (db.client().await, elsewhere.client().await);
    // Each has an id of a transaction, and stays open.
    stranger.batch_execute("begin; insert into mine values (1)").await.unwrap();
    other.batch_execute("begin; create table its (n integer)").await.unwrap();
    let (tell, mut told) = seen();
    let config = ConsumerConfig { sweep: Some(Duration::from_millis(50)), ..ConsumerConfig::default() };
    let consumer = db.broker().await.consumer("billing").config(config).fallback(move |delivery| {
        let _ = tell.send(delivery.id);
        async { Ok(Outcome::Done) }
    });
    let consumer = consumer.start().await.unwrap();
    let published = "integration.publish('shop', 'billing', 'n', '1') is null";
    let kept = format!("select exists (select from integration.places where target_app = 'billing') or {published}");
    until(&client, "the place is kept", &kept).await;

    let tx = writer.transaction().await.unwrap();
    let late: i64 = tx.query_one(INSERT, &[&0i32, &0i64]).await.unwrap().get(0);
    for n in 0..200 {
        plain_insert(&client, "billing", &n.to_string()).await;
    }
    let passed = format!(
        "select exists (select from integration.places p join integration.data_staging d on d.id = {late} \
        where p.target_app = 'billing' and (p.created_at, p.id) > (d.created_at, d.id))"
    );
    until(&client, "all others are completed", "select integration.is_drained('billing')").await;
    assert!(!tx.query_one(&passed, &[]).await.unwrap().get::<_, bool>(0));
    tx.commit().await.unwrap();
    while told.next().await != late {}
    until(
        &client,
        "the place has moved on",
        &passed.replace("select exists", &format!("select {published} or exists")),
    )
    .await;
    consumer.shutdown().await.unwrap();
    drop((stranger, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_keeps_its_places_for_the_next_one() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let (tell, mut told) = seen();
    let start = async |broker: &Broker| {
        let tell = tell.clone();
        let consumer = broker
            .consumer("billing")
            .config(ConsumerConfig { sweep: Some(Duration::from_millis(50)), ..ConsumerConfig::default() })
            .fallback(move |delivery| {
                let _ = tell.send(delivery.id);
                async { Ok(Outcome::Done) }
            });
        consumer.start().await.unwrap()
    };
    let consumer = start(&broker).await;
    // The place of one look is known to hold at the next, unless a transaction is open anywhere on the server: others' tests
    // have some.
    let kept = "select exists (select from integration.places where target_app = 'billing') \
        or integration.publish('shop', 'billing', 'n', '1') is null";
    until(&client, "the place is kept", kept).await;
    consumer.shutdown().await.unwrap();
    let next = start(&broker).await;
    let id = plain_insert(&client, "billing", "5").await;
    while told.next().await != id {}
    next.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_claimed_ahead_is_given_back_when_handlers_become_slow() {
    let db = Database::new().await;
    let client = db.client().await;
    let (broker, other) = (db.broker().await, db.broker().await);
    let messages: Vec<_> = (0..800).map(|n| message("billing", n)).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    let (tell, mut told) = seen();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let closed = gate.clone();
    let slow = broker.consumer("billing").config(ConsumerConfig { concurrency: 1, ..bells_only() }).fallback(
        move |delivery| {
            let n: i64 = delivery.json().unwrap();
            let _ = tell.send(n);
            let gate = closed.clone();
            async move {
                if n == 300 {
                    let _open = gate.acquire().await?;
                }
                Ok(Outcome::Done)
            }
        },
    );
    let slow = slow.start().await.unwrap();
    told.take(301).await;
    let (fast, _told) = echo(&other, "billing").await;
    until_count(&client, "completed", 799).await;
    gate.add_permits(1);
    until_count(&client, "completed", 800).await;
    assert_eq!(count(&client, "select max(retry_count)::bigint from integration.data_staging").await, 0);
    slow.shutdown().await.unwrap();
    fast.shutdown().await.unwrap();
}
