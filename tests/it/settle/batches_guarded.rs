//! Batches of targets with a breaker, and with a limit of what is handled at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorbell::{Batch, BatchOutcome, ConsumerConfig, Delivery, Message, Outcome};

use crate::support::{Database, bells_only, count, message, seen, until, until_count};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_says_its_dependency_is_down_opens_the_breaker_and_canaries_are_a_batch_that_closes_it() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("update integration.settings set breaker_open_for = '100 ms'").await.unwrap();
    let (tell, mut told) = seen();
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let broker = db.broker().await;
    let consumer = broker.consumer("billing").config(ConsumerConfig { concurrency: 1, ..bells_only() });
    let consumer = consumer.on_batch("n", Batch::of(9), move |items: Vec<(i64, Delivery)>| {
        let down = is_down.load(Ordering::SeqCst);
        let _ = tell.send((items.len(), down));
        async move {
            let mut outcome = BatchOutcome::done();
            for (_, delivery) in items.iter().filter(|_| down) {
                outcome.set(delivery.id, Outcome::unavailable("the warehouse is down"));
            }
            Ok(outcome)
        }
    });
    let consumer = consumer.start().await.unwrap();
    let opened =
        |times: u32| format!("select count(*) >= {times} from integration.audit_log where action = 'breaker_open'");
    let producer = broker.producer("shop");
    producer.publish(&message("billing", 0)).await.unwrap();
    until(&client, "the breaker opened", &opened(1)).await;
    // Nothing but canaries goes through from now on, three of them.
    producer.publish_many(&(1..=30).map(|n| message("billing", n)).collect::<Vec<Message>>()).await.unwrap();
    until(&client, "the breaker opened again, and again", &opened(3)).await;
    down.store(false, Ordering::SeqCst);
    until_count(&client, "completed", 31).await;
    consumer.shutdown().await.unwrap();
    let (while_down, after): (Vec<_>, Vec<_>) = told.rest().partition(|(_, down)| *down);
    assert!(while_down.len() >= 3 && while_down.iter().all(|(size, _)| *size <= 3), "{while_down:?}");
    assert_eq!(after.iter().map(|(size, _)| size).sum::<usize>(), 31);
    assert!(after.iter().any(|(size, _)| *size > 3), "{after:?}");
    assert_eq!(count(&client, "select sum(retry_count) from integration.data_staging").await, 0);
    let closed = "select count(*) from integration.breakers where breaker_key = 'billing' and state = 'closed'";
    assert_eq!(count(&client, closed).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_messages_are_in_batches_of_all_processes_than_max_in_flight() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("select integration.set_target('billing', '{\"max_in_flight\": 4}')").await.unwrap();
    let (in_flight, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let broker = db.broker().await;
        let (in_flight, most) = (in_flight.clone(), most.clone());
        // What another process has finished is not rung for.
        let config = ConsumerConfig { concurrency: 4, sweep: Some(Duration::from_millis(200)), ..bells_only() };
        let consumer = broker.consumer("billing").config(config);
        let consumer = consumer.on_batch("n", Batch::of(3), move |items: Vec<(i64, Delivery)>| {
            let (in_flight, most) = (in_flight.clone(), most.clone());
            async move {
                most.fetch_max(in_flight.fetch_add(items.len(), Ordering::SeqCst) + items.len(), Ordering::SeqCst);
                tokio::task::yield_now().await;
                in_flight.fetch_sub(items.len(), Ordering::SeqCst);
                Ok(BatchOutcome::done())
            }
        });
        consumers.push((consumer.start().await.unwrap(), broker));
    }
    let messages: Vec<Message> = (0..60).map(|n| message("billing", n)).collect();
    consumers[0].1.producer("shop").publish_many(&messages).await.unwrap();
    until_count(&client, "completed", 60).await;
    for (consumer, _) in consumers {
        consumer.shutdown().await.unwrap();
    }
    let most = most.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most}");
}
