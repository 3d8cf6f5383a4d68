//! Publishers that commit late and roll back, consumers that fail: each key in order all the same.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use doorbell::{BrokerConfig, ConsumerConfig};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio_postgres::Client;

use super::{Runs, unreliable};
use crate::support::{Database, HOUR, bells_only, count, until, until_so};

const PUBLISHERS: usize = 3;
const KEYS_EACH: usize = 4;

async fn publish(client: &Client, n: i64, priority: i32, (publisher, key): (usize, usize)) {
    let publish = "select integration.publish('shop', 'billing', 'n', $1, p_priority => $2, p_ordering_key => $3)";
    client.query(publish, &[&json!(n), &priority, &format!("{publisher} {key}")]).await.unwrap();
}

/// Publishes numbered messages of keys of its own, in transactions some of which are rolled back, and returns how many of
/// each key.
async fn numbered(db: &Database, publisher: usize, seed: u64, transactions: usize, ended: &AtomicUsize) -> Vec<i64> {
    let mut random = StdRng::seed_from_u64(seed + publisher as u64);
    let client = db.client().await;
    let mut published = vec![0; KEYS_EACH];
    for _ in 0..transactions {
        client.batch_execute("begin").await.unwrap();
        let mut now = published.clone();
        for _ in 0..random.random_range(1..6) {
            let key = random.random_range(0..KEYS_EACH);
            now[key] += 1;
            publish(&client, now[key], [0, 0, 5, -5][random.random_range(0..4)], (publisher, key)).await;
        }
        let commits = random.random_bool(0.9);
        client.batch_execute(if commits { "commit" } else { "rollback" }).await.unwrap();
        published = if commits { now } else { published };
        ended.fetch_add(1, Ordering::SeqCst);
    }
    published
}

/// Publishes to everybody's keys, in transactions that end after those of others that began later.
async fn late(db: &Database, seed: u64, transactions: usize, ended: &AtomicUsize) {
    let mut random = StdRng::seed_from_u64(seed + PUBLISHERS as u64);
    let client = db.client().await;
    loop {
        let began = ended.load(Ordering::SeqCst);
        let last = (began + random.random_range(1..20)).min(transactions * PUBLISHERS);
        client.batch_execute("begin").await.unwrap();
        for _ in 0..3 {
            let of = (random.random_range(0..PUBLISHERS), random.random_range(0..KEYS_EACH));
            publish(&client, 0, 0, of).await;
        }
        until_so("others have ended", || ended.load(Ordering::SeqCst) >= last).await;
        client.batch_execute("commit").await.unwrap();
        if last == transactions * PUBLISHERS {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_is_done_in_order_whatever_commits_late_or_fails() {
    let given = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seed = given("DOORBELL_KEYS_SEED").unwrap_or_else(rand::random);
    let transactions = given("DOORBELL_KEYS_TRANSACTIONS").unwrap_or(60) as usize;
    println!("DOORBELL_KEYS_SEED={seed}");
    // So that numbers can be added to it.
    let seed = seed / 2;
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("update integration.settings set backoff_base_ms = 1").await.unwrap();
    let (runs, ended) = (Runs::default(), AtomicUsize::new(0));
    let mut consumers = Vec::new();
    for concurrency in [1, 3, 8] {
        let broker = db.broker_with(BrokerConfig { beat: Duration::from_millis(500), ..BrokerConfig::default() }).await;
        let config = ConsumerConfig { concurrency, sweep: HOUR, ..bells_only() };
        consumers.push((unreliable(&broker, "billing", config, &runs).start().await.unwrap(), broker));
    }
    let publishers = (0..PUBLISHERS).map(|publisher| numbered(&db, publisher, seed, transactions, &ended));
    let publishers = futures::future::join_all(publishers);
    let (published, ()) = futures::join!(publishers, late(&db, seed, transactions, &ended));
    let done = "select not exists (select from integration.data_staging where status in ('pending', 'scheduled', 'processing'))";
    until(&client, "all is done", done).await;
    for (consumer, broker) in consumers {
        consumer.shutdown().await.unwrap();
        broker.close().await;
    }
    are_done_in_order(&runs, &published, seed);
    assert_eq!(count(&client, "select count(*) from integration.check_counters() where counted <> messages").await, 0);
}

fn are_done_in_order(runs: &Runs, published: &[Vec<i64>], seed: u64) {
    let noted = runs.0.lock().unwrap();
    assert!(noted.overlaps.is_empty(), "seed {seed}: {:?}", noted.overlaps);
    for (publisher, keys) in published.iter().enumerate() {
        for (key, count) in keys.iter().enumerate().filter(|(_, count)| **count > 0) {
            let done = noted.done.get(&format!("{publisher} {key}"));
            let expected: Vec<i64> = (1..=*count).collect();
            assert_eq!(done, Some(&expected), "seed {seed}, key {publisher} {key}");
        }
    }
}
