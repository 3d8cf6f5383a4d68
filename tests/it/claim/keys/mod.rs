//! Messages with ordering keys: one of a key at a time, in order, whatever happens, and nobody else waits for them.

mod blockers;
mod cost;
mod killed;
mod plans;
mod races;
mod stress;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use doorbell::{
    Broker, ConsumerBuilder, ConsumerConfig, Message, Outcome,
    operate::{KeyState, Unblock},
};

use crate::support::{Database, bells_only, count, row, seen, until, until_count, until_status};

fn keyed(key: &str, n: i64) -> Message {
    Message::new("billing", "n", &n).unwrap().ordering_key(key)
}

/// What handlers of keyed messages do, noted.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    running: BTreeSet<String>,
    done: BTreeMap<String, Vec<i64>>,
    overlaps: Vec<String>,
}

impl Runs {
    fn begin(&self, key: &str) {
        let mut noted = self.0.lock().unwrap();
        if !noted.running.insert(key.to_owned()) {
            noted.overlaps.push(key.to_owned());
        }
    }

    fn end(&self, key: &str, n: i64, done: bool) {
        let mut noted = self.0.lock().unwrap();
        noted.running.remove(key);
        // Numbered from 1.
        if done && n > 0 {
            noted.done.entry(key.to_owned()).or_default().push(n);
        }
    }

    /// Each key was done from 1 to so many, one at a time.
    fn are_in_order(&self, keys: usize, each: i64) {
        let noted = self.0.lock().unwrap();
        assert_eq!((noted.overlaps.as_slice(), noted.done.len()), ([].as_slice(), keys));
        for (key, done) in &noted.done {
            assert_eq!(*done, (1..=each).collect::<Vec<_>>(), "{key}");
        }
    }
}

/// Fails every fifth message the first time, gives every seventh back, panics at every eleventh.
fn unreliable(broker: &Broker, target: &str, config: ConsumerConfig, runs: &Runs) -> ConsumerBuilder {
    let runs = runs.clone();
    broker.consumer(target).config(config).on("n", move |n: i64, delivery| {
        let (runs, key) = (runs.clone(), delivery.ordering_key.clone().unwrap());
        runs.begin(&key);
        async move {
            tokio::task::yield_now().await;
            let first = delivery.retry_count == 0 && delivery.attempt == 1;
            let done = !(first && (n % 5 == 0 || n % 7 == 0 || n % 11 == 0));
            runs.end(&key, n, done);
            match n {
                _ if done => Ok(Outcome::Done),
                _ if n % 7 == 0 => Ok(Outcome::snooze(std::time::Duration::from_millis(1))),
                _ if n % 11 == 0 => panic!("not now"),
                _ => Err("not now".into()),
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_fail_now_and_then_do_each_key_in_order_one_message_at_a_time() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("update integration.settings set backoff_base_ms = 1").await.unwrap();
    let (one, other, runs) = (db.broker().await, db.broker().await, Runs::default());
    let config = ConsumerConfig { concurrency: 4, ..bells_only() };
    let first = unreliable(&one, "billing", config.clone(), &runs).start().await.unwrap();
    let second = unreliable(&other, "billing", config, &runs).start().await.unwrap();
    let producer = one.producer("shop");
    for n in 1..=40 {
        let batch: Vec<Message> = (0..6).map(|key| keyed(&format!("key {key}"), n)).collect();
        producer.publish_many(&batch).await.unwrap();
    }
    until_count(&client, "completed", 240).await;
    first.shutdown().await.unwrap();
    second.shutdown().await.unwrap();
    runs.are_in_order(6, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_good_blocks_its_key_until_somebody_says_what_becomes_of_it() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let (tell, mut told) = seen();
    let consumer = broker.consumer("billing").config(bells_only()).on("n", move |n: i64, delivery| {
        let _ = tell.send((delivery.ordering_key.clone(), n));
        async move {
            let bad = n == 1 && delivery.redrive_count == 0;
            Ok(if bad { Outcome::reject("no such order") } else { Outcome::Done })
        }
    });
    let consumer = consumer.start().await.unwrap();
    let (a, b) = (Some("a".to_owned()), Some("b".to_owned()));
    let producer = broker.producer("shop");
    let ids = producer.publish_many(&[keyed("a", 1), keyed("a", 2), keyed("a", 3)]).await.unwrap();
    assert_eq!(told.next().await, (a.clone(), 1));
    until_status(&client, ids[0], "failed").await;
    producer.publish(&keyed("b", 7)).await.unwrap();
    assert_eq!(told.next().await, (b, 7), "another key goes on, and nothing of this one came between");
    let operator = broker.operator();
    let blocked = operator.blocked_keys(None, 10).await.unwrap();
    assert_eq!((blocked.len(), blocked[0].message, blocked[0].waiting), (1, Some(ids[0]), 2));
    until(&client, "it stands behind", "select behind_at is not null from integration.data_staging where id = 3").await;
    let listed = operator.keys("billing", 10, None).await.unwrap();
    assert_eq!((listed.len(), listed[0].key.as_str(), listed[0].state), (1, "a", KeyState::Blocked));
    assert!(operator.keys("billing", 10, Some("a")).await.unwrap().is_empty());
    assert_eq!(operator.unblock("billing", "a", Unblock::Redrive).await.unwrap(), [ids[0]]);
    assert_eq!(told.take(3).await, [(a.clone(), 1), (a.clone(), 2), (a.clone(), 3)], "it keeps its place");
    assert!(operator.unblock("billing", "a", Unblock::Redrive).await.unwrap().is_empty());

    let ids = producer.publish_many(&[keyed("a", 1), keyed("a", 4)]).await.unwrap();
    assert_eq!(told.next().await, (a.clone(), 1));
    until_status(&client, ids[0], "failed").await;
    assert_eq!(operator.unblock("billing", "a", Unblock::Cancel).await.unwrap(), [ids[0]]);
    assert_eq!(told.next().await, (a.clone(), 4));
    assert_eq!(row(&client, ids[0]).await.status, "cancelled");

    operator.set_target("billing", r#"{"key_failed": "skip"}"#).await.unwrap();
    producer.publish_many(&[keyed("a", 1), keyed("a", 5)]).await.unwrap();
    assert_eq!(told.take(2).await, [(a.clone(), 1), (a, 5)]);
    until_count(&client, "failed", 1).await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_goes_on_in_order_where_its_process_is_taken_for_dead() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let (tell, mut told) = seen();
    let consumer = broker.consumer("billing").config(bells_only()).on("n", move |n: i64, delivery| {
        let _ = tell.send((n, delivery.attempt));
        async move {
            if n == 2 && delivery.attempt == 1 {
                std::future::pending::<()>().await;
            }
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    let messages: Vec<Message> = (1..=5).map(|n| keyed("a", n)).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    while told.next().await.0 != 2 {}
    client.batch_execute("delete from integration.processes").await.unwrap();
    until_count(&client, "completed", 5).await;
    consumer.shutdown().await.unwrap();
    let runs: Vec<i64> = told.rest().map(|(n, _)| n).collect();
    assert_eq!(runs, [2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_keys_and_without_is_held_again_when_no_more_keys_come() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("select integration.set_audit_level('all')").await.unwrap();
    let broker = db.broker().await;
    let consumer = broker.consumer("billing").config(bells_only()).on("n", |_: i64, _| async { Ok(Outcome::Done) });
    let consumer = consumer.start().await.unwrap();
    broker.producer("shop").publish(&keyed("a", 0)).await.unwrap();
    // Published until it is so: on a busy machine handlers are leased for being slow.
    let held = "select exists (select from integration.audit_log l join integration.data_staging d on d.id = l.staging_id \
        where l.action = 'completed' and l.old_status = 'pending') or integration.publish('shop', 'billing', 'n', '1') is null";
    until(&client, "something was held", held).await;
    broker.producer("shop").publish(&keyed("a", 0)).await.unwrap();
    until(&client, "all is completed", "select integration.is_drained('billing')").await;
    let held_with_a_key = "select count(*) from integration.audit_log l join integration.data_staging d on d.id = l.staging_id \
        where l.action = 'completed' and l.old_status = 'pending' and d.ordering_key is not null";
    assert_eq!(count(&client, held_with_a_key).await, 0);
    consumer.shutdown().await.unwrap();
}
