//! The server goes away under load and comes back: nothing is lost, nobody has to be restarted.

use std::time::Duration;

use doorbell::{
    Broker, Message, Outcome, Producer,
    server::{EphemeralOptions, Server, Shutdown},
};
use tokio::sync::watch;

use crate::support::{HOUR, connect, count, soon, until_count};

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
        let consumer = Broker::connect(&url).await.unwrap().consumer("billing").sweep(HOUR).fallback(move |_| {
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
