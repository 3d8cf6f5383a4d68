//! The server dies between a batch and its settle.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use doorbell::{Batch, BatchOutcome, ConsumerConfig, Delivery, Message};
use futures::FutureExt;
use tokio::sync::Semaphore;

use super::{broker, server};
use crate::support::{bells_only, connect, count, message, until_count};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_before_a_batch_is_settled_costs_nothing_and_each_effect_happens_once() {
    let (mut server, url) = server().await;
    let client = connect(&url).await;
    client.batch_execute("create table effects (n bigint)").await.unwrap();
    let broker = broker(&url).await;
    let (gate, plain) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let config = || ConsumerConfig { concurrency: 1, handler_timeout: None, ..bells_only() };
    let (opened, counted) = (gate.clone(), plain.clone());
    let billing = broker.consumer("billing").config(config()).on_batch("n", Batch::of(9), move |items: Items| {
        let (opened, counted) = (opened.clone(), counted.clone());
        async move {
            let _open = opened.acquire().await?;
            counted.fetch_add(items.len(), Ordering::SeqCst);
            Ok(BatchOutcome::done())
        }
    });
    let opened = gate.clone();
    let shipping =
        broker.consumer("shipping").config(config()).on_batch_tx("n", Batch::of(9), move |items: Items, tx| {
            let opened = opened.clone();
            async move {
                let numbers: Vec<i64> = items.iter().map(|(n, _)| *n).collect();
                tx.execute("insert into effects select unnest($1::bigint[])", &[&numbers]).await?;
                let _open = opened.acquire().await?;
                Ok(BatchOutcome::done())
            }
            .boxed()
        });
    let consumers = [billing.start().await.unwrap(), shipping.start().await.unwrap()];
    for target in ["billing", "shipping"] {
        let messages: Vec<Message> = (0..5).map(|n| message(target, n)).collect();
        broker.producer("shop").publish_many(&messages).await.unwrap();
    }
    until_count(&client, "processing", 10).await;
    // The claims are on disk: what a crash takes back is another scenario.
    client.batch_execute("checkpoint").await.unwrap();
    server.kill().await.unwrap();
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    server.start_again().await.unwrap();
    let client = connect(&url).await;
    until_count(&client, "completed", 10).await;
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
    assert_eq!(plain.load(Ordering::SeqCst), 5, "what was done is not done again");
    let once = "select count(*) * 10 + count(distinct n) from effects";
    assert_eq!(count(&client, once).await, 55);
    let ends =
        "select count(*) * 100 + count(distinct staging_id) from integration.audit_log where action = 'completed'";
    assert_eq!(count(&client, ends).await, 1010);
    server.stop().await.unwrap();
}

type Items = Vec<(i64, Delivery)>;
