//! Keys with every way in which messages come and end: what happens to them on completion, handlers in the transaction
//! that completes them, copies of a topic.

use std::sync::{Arc, Mutex};

use doorbell::{ConsumerConfig, Message, Outcome, operate::Subscription};
use futures::FutureExt;

use super::{Runs, keyed, unreliable};
use crate::support::{Database, bells_only, count, seen, until, until_status};

const KEYS: usize = 4;
const EACH: i64 = 30;

fn of_each_key(n: i64) -> Vec<Message> {
    (0..KEYS).map(|key| keyed(&format!("key {key}"), n)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_in_order_where_completed_messages_are_archived_or_deleted_at_once() {
    for on_complete in ["archive", "delete"] {
        let db = Database::new().await;
        let client = db.client().await;
        let settings = format!(
            "update integration.settings set backoff_base_ms = 1; \
             insert into integration.targets (target_app, on_complete) values ('billing', '{on_complete}')"
        );
        client.batch_execute(&settings).await.unwrap();
        let (one, other, runs) = (db.broker().await, db.broker().await, Runs::default());
        let config = ConsumerConfig { concurrency: 4, ..bells_only() };
        let first = unreliable(&one, "billing", config.clone(), &runs).start().await.unwrap();
        let second = unreliable(&other, "billing", config, &runs).start().await.unwrap();
        for n in 1..=EACH {
            one.producer("shop").publish_many(&of_each_key(n)).await.unwrap();
        }
        until(&client, "all is done", "select not exists (select from integration.data_staging)").await;
        first.shutdown().await.unwrap();
        second.shutdown().await.unwrap();
        runs.are_in_order(KEYS, EACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_in_the_transaction_of_its_message_finds_the_effects_of_all_that_went_before_it_of_its_key() {
    let db = Database::read_committed().await;
    let client = db.client().await;
    let prepare = "create table effects (key text, n bigint); update integration.settings set backoff_base_ms = 1";
    client.batch_execute(prepare).await.unwrap();
    let (one, other) = (db.broker().await, db.broker().await);
    let missing: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut consumers = Vec::new();
    for broker in [&one, &other] {
        let missing = missing.clone();
        let config = ConsumerConfig { concurrency: 4, ..bells_only() };
        let consumer = broker.consumer("billing").config(config).on_tx("n", move |n: i64, delivery, tx| {
            let missing = missing.clone();
            async move {
                let key = delivery.ordering_key.unwrap();
                let before = "select array_agg(n order by n) from effects where key = $1";
                let before: Option<Vec<i64>> = tx.query_one(before, &[&key]).await?.get(0);
                if before.clone().unwrap_or_default() != (1..n).collect::<Vec<_>>() {
                    missing.lock().unwrap().push(format!("{key}: {n} after {before:?}"));
                }
                tx.execute("insert into effects values ($1, $2)", &[&key, &n]).await?;
                let first = delivery.retry_count == 0;
                Ok(if first && n % 5 == 0 { Outcome::retry("not now") } else { Outcome::Done })
            }
            .boxed()
        });
        consumers.push(consumer.start().await.unwrap());
    }
    for n in 1..=EACH {
        one.producer("shop").publish_many(&of_each_key(n)).await.unwrap();
    }
    until(&client, "all is done", "select integration.is_drained('billing')").await;
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
    assert_eq!(*missing.lock().unwrap(), Vec::<String>::new());
    assert_eq!(count(&client, "select count(*) from effects").await, KEYS as i64 * EACH);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_have_the_key_of_the_original_and_each_subscriber_an_order_and_blocks_of_its_own() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let operator = broker.operator();
    for target in ["billing", "mail"] {
        let subscription = Subscription { topic: "orders".into(), target: target.into(), ..Subscription::default() };
        assert!(operator.subscribe(&subscription).await.unwrap());
    }
    let (tell, mut told) = seen();
    let mut consumers = Vec::new();
    for target in ["billing", "mail"] {
        let tell = tell.clone();
        let consumer = broker.consumer(target).config(bells_only()).on("n", move |n: i64, delivery| {
            let _ = tell.send((delivery.target.clone(), delivery.ordering_key.clone().unwrap(), n));
            let fails = delivery.target == "mail" && delivery.ordering_key.as_deref() == Some("a") && n == 2;
            async move {
                Ok(if fails && delivery.redrive_count == 0 {
                    Outcome::reject("no such address")
                } else {
                    Outcome::Done
                })
            }
        });
        consumers.push(consumer.start().await.unwrap());
    }
    let message = |n: i64, key| Message::new("orders", "n", &n).unwrap().ordering_key(key);
    let messages: Vec<Message> = (1..=4).flat_map(|n| [message(n, "a"), message(n, "b")]).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    let mut handled = told.take(14).await;
    let blocked = "select count(*) = 1 from integration.blocked_keys where target_app = 'mail' and ordering_key = 'a' and waiting = 2";
    until(&client, "one key of one subscriber is blocked", blocked).await;
    assert_eq!(told.rest().count(), 0);
    let failed: i64 = client.query_one("select staging_id from integration.blocked_keys", &[]).await.unwrap().get(0);
    assert_eq!(operator.redrive(&[failed]).await.unwrap(), [failed]);
    handled.extend(told.take(3).await);
    until_status(&client, failed, "completed").await;
    until(&client, "all is done", "select integration.is_drained('mail')").await;
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
    for (target, key, expected) in [
        ("billing", "a", &[1, 2, 3, 4][..]),
        ("billing", "b", &[1, 2, 3, 4]),
        ("mail", "a", &[1, 2, 2, 3, 4]),
        ("mail", "b", &[1, 2, 3, 4]),
    ] {
        let of = handled.iter().filter(|(of, with, _)| of == target && with == key);
        assert_eq!(of.map(|(.., n)| *n).collect::<Vec<_>>(), expected, "{target}, {key}");
    }
}
