//! Handlers that take several messages at a time.

use std::{sync::Arc, time::Duration};

use doorbell::{Batch, BatchOutcome, ConsumerConfig, Delivery, ErrorKind, Message, Outcome};
use tokio::sync::Semaphore;

use crate::support::{Database, HOUR, bells_only, count, message, row, seen, soon, until, until_count, until_status};

type Items = Vec<(i64, Delivery)>;

fn numbers(items: &Items) -> Vec<i64> {
    items.iter().map(|(n, _)| *n).collect()
}

fn one_at_a_time() -> ConsumerConfig {
    ConsumerConfig { concurrency: 1, ..bells_only() }
}

async fn publish(db: &Database, numbers: std::ops::RangeInclusive<i64>) -> Vec<i64> {
    let messages: Vec<Message> = numbers.map(|n| message("billing", n)).collect();
    db.broker().await.producer("shop").publish_many(&messages).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_what_waits_and_each_of_its_messages_has_an_outcome_of_its_own() {
    let db = Database::new().await;
    let ids = publish(&db, 1..=5).await;
    let (tell, mut told) = seen();
    let consumer = db.broker().await.consumer("billing").config(one_at_a_time());
    let consumer = consumer.on_batch("n", Batch::of(3), move |items: Items| {
        let _ = tell.send(numbers(&items));
        async move {
            let mut outcome = BatchOutcome::done();
            for (n, delivery) in items {
                match n {
                    2 => outcome.set(delivery.id, Outcome::reject("two")),
                    3 => outcome.set(delivery.id, Outcome::snooze(Duration::from_secs(3600))),
                    4 => outcome.set(delivery.id, Outcome::retry_after(Duration::from_secs(3600), "four")),
                    _ => {}
                }
            }
            Ok(outcome)
        }
    });
    let consumer = consumer.start().await.unwrap();
    assert_eq!(told.take(2).await, [vec![1, 2, 3], vec![4, 5]]);
    consumer.shutdown().await.unwrap();
    let client = db.client().await;
    let mut became = Vec::new();
    for id in ids {
        let row = row(&client, id).await;
        became.push((row.status.clone(), row.retry_count, row.error.clone().unwrap_or_default()));
    }
    let expected = [
        ("completed", 0, ""),
        ("failed", 1, "two"),
        ("scheduled", 0, ""),
        ("scheduled", 1, "four"),
        ("completed", 0, ""),
    ];
    assert_eq!(became, expected.map(|(status, retries, reason)| (status.to_owned(), retries, reason.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_costs_no_retry_and_the_bad_one_pays_alone() {
    for how in ["error", "panic", "time-out", "stranger", "transaction"] {
        let db = Database::new().await;
        let client = db.client().await;
        client.batch_execute("create table effects (n bigint check (n <> 3))").await.unwrap();
        let ids = publish(&db, 1..=4).await;
        let config = ConsumerConfig { handler_timeout: Some(Duration::from_millis(20)), ..one_at_a_time() };
        let consumer = db.broker().await.consumer("billing").config(config);
        let consumer = match how {
            "transaction" => consumer.on_batch_tx("n", Batch::of(9), move |items: Items, tx| {
                Box::pin(async move {
                    let numbers = numbers(&items);
                    tx.execute("insert into effects select unnest($1::bigint[])", &[&numbers]).await?;
                    Ok(BatchOutcome::done())
                })
            }),
            how => consumer.on_batch("n", Batch::of(9), move |items: Items| async move {
                let alone = items.len() == 1;
                match how {
                    _ if alone && items[0].0 != 3 => Ok(BatchOutcome::done()),
                    _ if alone => Err("three".into()),
                    "error" => Err("together".into()),
                    "panic" => panic!("together"),
                    "stranger" => Ok(BatchOutcome::done().but(99, Outcome::Done)),
                    _ => std::future::pending().await,
                }
            }),
        };
        let consumer = match how {
            // Where the handler waits for the server.
            "transaction" => consumer.config(one_at_a_time()),
            _ => consumer,
        };
        let consumer = consumer.start().await.unwrap();
        until_count(&client, "completed", 3).await;
        let bad = until_status(&client, ids[2], "scheduled").await;
        assert_eq!((bad.attempt, bad.retry_count), (1, 1), "{how}");
        let paid = "select count(*) from integration.data_staging where attempt <> 1 or retry_count > 0 and id <> 3";
        assert_eq!(count(&client, paid).await, 0, "{how}");
        assert_eq!(count(&client, "select count(*) from effects").await, if how == "transaction" { 3 } else { 0 });
        consumer.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_of_a_batch_are_there_once_and_not_of_those_that_are_not_done() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("create table effects (n bigint)").await.unwrap();
    publish(&db, 1..=5).await;
    let (tell, mut told) = seen();
    let consumer = db.broker().await.consumer("billing").config(one_at_a_time());
    let consumer = consumer.on_batch_tx("n", Batch::of(5), move |items: Items, tx| {
        let numbers = numbers(&items);
        let _ = tell.send(numbers.clone());
        Box::pin(async move {
            tx.execute("insert into effects select unnest($1::bigint[])", &[&numbers]).await?;
            let two = items.iter().find(|(n, _)| *n == 2);
            Ok(two.into_iter().fold(BatchOutcome::done(), |all, (_, two)| all.but(two.id, Outcome::reject("two"))))
        })
    });
    let consumer = consumer.start().await.unwrap();
    assert_eq!(told.take(2).await, [vec![1, 2, 3, 4, 5], vec![1, 3, 4, 5]]);
    until_count(&client, "completed", 4).await;
    consumer.shutdown().await.unwrap();
    let once = "select count(*) from effects where n in (1, 3, 4, 5)";
    assert_eq!((count(&client, once).await, count(&client, "select count(*) from effects").await), (4, 4));
    assert_eq!(
        count(&client, "select count(*) from integration.data_staging where status = 'failed' and attempt = 1").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_key_are_in_order_and_those_after_one_that_is_not_done_are_handled_again_after_it() {
    let db = Database::new().await;
    let client = db.client().await;
    let keyed = |n: i64| message("billing", n).ordering_key(if n == 4 { "b" } else { "a" });
    let ids = db.broker().await.producer("shop").publish_many(&[1, 2, 3, 4].map(keyed)).await.unwrap();
    let (tell, mut told) = seen();
    let consumer = db.broker().await.consumer("billing").config(one_at_a_time());
    let consumer = consumer.on_batch("n", Batch::of(9), move |items: Items| {
        let _ = tell.send(numbers(&items));
        async move {
            let first = |delivery: &Delivery| delivery.attempt == 1;
            let two = items.iter().find(|(n, two)| *n == 2 && first(two));
            let not_yet = Outcome::retry_after(Duration::ZERO, "not yet");
            Ok(two.into_iter().fold(BatchOutcome::done(), |all, (_, two)| all.but(two.id, not_yet.clone())))
        }
    });
    let consumer = consumer.start().await.unwrap();
    assert_eq!(told.next().await, [1, 2, 3, 4]);
    until_count(&client, "completed", 4).await;
    consumer.shutdown().await.unwrap();
    let again: Vec<i64> = told.rest().flatten().collect();
    assert_eq!(again, [2, 3], "three was given back although it was done");
    let three = row(&client, ids[2]).await;
    assert_eq!(three.retry_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_key_whose_transaction_is_undone_runs_one_by_one_in_order() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("create table effects (at bigint generated always as identity, n bigint)").await.unwrap();
    let keyed = |n: i64| message("billing", n).ordering_key("a");
    db.broker().await.producer("shop").publish_many(&[1, 2, 3].map(keyed)).await.unwrap();
    let (tell, mut told) = seen();
    let consumer = db.broker().await.consumer("billing").config(one_at_a_time());
    let consumer = consumer.on_batch_tx("n", Batch::of(9), move |items: Items, tx| {
        let numbers = numbers(&items);
        let _ = tell.send(numbers.clone());
        Box::pin(async move {
            tx.execute("insert into effects (n) select unnest($1::bigint[])", &[&numbers]).await?;
            let two = items.iter().find(|(n, two)| *n == 2 && two.attempt == 1);
            let not_yet = Outcome::retry_after(Duration::ZERO, "not yet");
            Ok(two.into_iter().fold(BatchOutcome::done(), |all, (_, two)| all.but(two.id, not_yet.clone())))
        })
    });
    let consumer = consumer.start().await.unwrap();
    assert_eq!(told.take(3).await, [vec![1, 2, 3], vec![1], vec![2]]);
    until_count(&client, "completed", 3).await;
    consumer.shutdown().await.unwrap();
    let order = "select string_agg(n::text, ' ' order by at) = '1 2 3' from effects";
    assert!(client.query_one(order, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_until_it_is_full_but_no_longer_than_it_may_linger() {
    let db = Database::new().await;
    let producer = db.broker().await.producer("shop");
    let (tell, mut told) = seen();
    let (later, other) = (tell.clone(), tell.clone());
    let consumer = db.broker().await.consumer("billing").config(bells_only());
    let consumer = consumer
        .on_batch("full", Batch::of(3).linger(Duration::from_secs(60)), move |items: Items| {
            let _ = tell.send(("full", numbers(&items)));
            async { Ok(BatchOutcome::done()) }
        })
        .on_batch("late", Batch::of(3).linger(Duration::from_millis(50)), move |items: Items| {
            let _ = later.send(("late", numbers(&items)));
            async { Ok(BatchOutcome::done()) }
        })
        .on("one", move |n: i64, _| {
            let _ = other.send(("one", vec![n]));
            async { Ok(Outcome::Done) }
        });
    let consumer = consumer.start().await.unwrap();
    let of = |record_type: &str, n: i64| Message::new("billing", record_type, &n).unwrap();
    producer.publish_many(&[of("full", 1), of("full", 2)]).await.unwrap();
    // Waits for nobody, and nobody waits for it.
    producer.publish(&of("one", 7)).await.unwrap();
    assert_eq!(told.next().await, ("one", vec![7]));
    producer.publish(&of("late", 8)).await.unwrap();
    assert_eq!(told.next().await, ("late", vec![8]));
    producer.publish(&of("full", 3)).await.unwrap();
    // Long before the minute is over: this waits for less.
    assert_eq!(told.next().await, ("full", vec![1, 2, 3]));
    // What lingers when it stops is given back.
    let client = db.client().await;
    producer.publish(&of("full", 4)).await.unwrap();
    until_count(&client, "processing", 1).await;
    consumer.shutdown().await.unwrap();
    until(
        &client,
        "it is given back",
        "select status = 'pending' and retry_count = 0 from integration.data_staging where data = '4'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_without_a_message_that_was_cancelled_and_payloads_that_do_not_decode_fail_alone() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let mut ids = publish(&db, 1..=3).await;
    let bad = Message::new("billing", "n", &"not a number").unwrap();
    ids.push(broker.producer("shop").publish(&bad).await.unwrap());
    let (tell, mut told) = seen();
    let gate = Arc::new(Semaphore::new(0));
    let waits = gate.clone();
    let consumer =
        broker.consumer("billing").config(one_at_a_time()).on_batch("n", Batch::of(9), move |items: Items| {
            let _ = tell.send(numbers(&items));
            let gate = waits.clone();
            async move {
                let _ = soon("the gate opens", gate.acquire()).await;
                Ok(BatchOutcome::done())
            }
        });
    let consumer = consumer.start().await.unwrap();
    assert_eq!(told.next().await, [1, 2, 3]);
    broker.operator().cancel(&[ids[0]], None).await.unwrap();
    gate.add_permits(1);
    until_count(&client, "completed", 2).await;
    consumer.shutdown().await.unwrap();
    let first = row(&client, ids[0]).await;
    let last = row(&client, ids[3]).await;
    assert_eq!((first.status.as_str(), last.status.as_str(), last.attempt), ("cancelled", "failed", 1));
    assert!(last.reason().contains("cannot be read as i64"), "{}", last.reason());
    assert_eq!(told.rest().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_is_a_batch_by_itself() {
    let db = Database::new().await;
    let client = db.client().await;
    publish(&db, 1..=3).await;
    client
        .batch_execute("update integration.data_staging set crash_count = 1, requeued_at = now() where data = '2'")
        .await
        .unwrap();
    let (tell, mut told) = seen();
    let consumer = db.broker().await.consumer("billing").config(one_at_a_time());
    let consumer = consumer.on_batch("n", Batch::of(9), move |items: Items| {
        let _ = tell.send(numbers(&items));
        async { Ok(BatchOutcome::done()) }
    });
    let consumer = consumer.start().await.unwrap();
    let mut batches = told.take(2).await;
    batches.sort();
    assert_eq!(batches, [vec![1, 3], vec![2]]);
    until_count(&client, "completed", 3).await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_is_refused_at_the_start() {
    let db = Database::new().await;
    for (batch, word) in [(Batch::of(0), "0 messages"), (Batch::of(9).linger(HOUR.unwrap()), "3600 s")] {
        let consumer = db.broker().await.consumer("billing");
        let refused = consumer.on_batch("n", batch, |_: Items| async { Ok(BatchOutcome::done()) }).start().await;
        let error = refused.map(drop).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(word), "{error}");
    }
}
