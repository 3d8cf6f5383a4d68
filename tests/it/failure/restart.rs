//! The server goes away under load and comes back: nothing is lost, nobody has to be restarted.

use std::{sync::Arc, time::Duration};

use doorbell::{Broker, Message, Outcome, Producer};
use doorbell_server::{EphemeralOptions, Server, Shutdown};
use tokio::sync::{Semaphore, watch};

use crate::support::{Database, bells_only, connect, count, plain_insert, seen, soon, until, until_count};

const PRODUCERS: usize = 4;
const BATCH: usize = 20;

/// Publishes a share of the numbers, again and again until it is known to have worked.
async fn publish(producer: Producer, numbers: std::ops::Range<usize>) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let all: Vec<Message> =
        numbers.map(|n| Message::new("billing", "n", &n).unwrap().dedup_key(n.to_string())).collect();
    for batch in all.chunks(BATCH) {
        while let Err(error) = producer.publish_many(batch).await {
            assert!(error.is_transient(), "{error:?}");
            tick.tick().await;
        }
    }
}

/// Two processes consume and one publishes while the outage happens twice.
async fn nothing_is_lost(messages: usize, outage: impl AsyncFn(&mut Server)) {
    let options = EphemeralOptions { durable: true, ..Default::default() };
    let mut server = Server::ephemeral(options).await.unwrap();
    let url = server.connection_string("postgres");
    let publisher = Broker::connect(&url).await.unwrap();
    publisher.migrate().await.unwrap();
    let (handled, mut progress) = watch::channel(0);
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let handled = handled.clone();
        let consumer =
            Broker::connect(&url).await.unwrap().consumer("billing").config(bells_only()).fallback(move |_| {
                handled.send_modify(|count| *count += 1);
                async { Ok(Outcome::Done) }
            });
        consumers.push(consumer.start().await.unwrap());
    }
    let share = messages / PRODUCERS;
    let producers: Vec<_> =
        (0..PRODUCERS).map(|n| tokio::spawn(publish(publisher.producer("shop"), n * share..(n + 1) * share))).collect();
    for part in 1..=2 {
        soon("messages are handled", progress.wait_for(|&count| count > part * messages / 4)).await.unwrap();
        outage(&mut server).await;
    }
    for producer in producers {
        soon("all are published", producer).await.unwrap();
    }
    let client = connect(&url).await;
    until_count(&client, "completed", messages).await;
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, messages as i64);
    let distinct = "select count(distinct data) from integration.data_staging";
    assert_eq!(count(&client, distinct).await, messages as i64);
    for consumer in consumers {
        soon("the consumer stops", consumer.shutdown()).await.unwrap();
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_restart_under_load_loses_nothing() {
    nothing_is_lost(6000, async |server| server.restart(Shutdown::Fast).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immediate_restart_under_load_loses_nothing() {
    nothing_is_lost(6000, async |server| server.restart(Shutdown::Immediate).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_that_is_started_again_has_lost_nothing() {
    nothing_is_lost(6000, async |server| {
        server.kill().await.unwrap();
        server.start_again().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_comes_a_second_time_is_not_run_beside_the_first() {
    let db = Database::new().await;
    let client = db.client().await;
    let (gate, (tell, mut told)) = (Arc::new(Semaphore::new(0)), seen());
    let closed = gate.clone();
    let consumer = db.broker().await.consumer("billing").config(bells_only()).fallback(move |delivery| {
        let _ = tell.send((delivery.id, delivery.attempt));
        let gate = closed.clone();
        async move { Ok(gate.acquire().await.map(|_| Outcome::Done)?) }
    });
    let consumer = consumer.start().await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    assert_eq!(told.next().await, (id, 1));
    // What a crash of the server leaves of a claim whose commit had not been flushed.
    let undo = format!(
        "begin; set local session_replication_role = replica; \
         update integration.data_staging set status = 'pending', attempt = 0, owner = null, requeued_at = integration.clock() where id = {id}; commit"
    );
    client.batch_execute(&undo).await.unwrap();
    let next = plain_insert(&client, "billing", "2").await;
    let again = format!("select status = 'processing' and attempt = 1 from integration.data_staging where id = {id}");
    until(&client, "the message was claimed again", &again).await;
    assert_eq!(told.next().await, (next, 1));
    gate.add_permits(2);
    until_count(&client, "completed", 2).await;
    consumer.shutdown().await.unwrap();
    assert_eq!(told.rest().count(), 0);
}
