//! Batches whose commit, or whose settle, was lost.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use doorbell::{Batch, BatchOutcome, ConsumerBuilder, ConsumerConfig, Delivery, Message};
use futures::FutureExt;

use super::{Lab, message};
use crate::{
    logs::Logs,
    proxy::Cut,
    support::{bells_only, count, until},
};

/// Publishes ten messages through what is cut, and says of the history of their ends that each has one.
async fn ten_end_once(lab: &Lab, cut: Cut, consumer: ConsumerBuilder) {
    let logs = Logs::capture();
    lab.client.batch_execute("update integration.settings set backoff_base_ms = 0").await.unwrap();
    let consumer = consumer.config(ConsumerConfig { concurrency: 1, ..bells_only() }).start().await.unwrap();
    lab.proxy.cut(cut);
    let messages: Vec<Message> = (0..10).map(message).collect();
    lab.broker.producer("shop").publish_many(&messages).await.unwrap();
    lab.proxy.was_cut().await;
    let all = "select count(*) = 10 from integration.data_staging where status = 'completed' and retry_count = 0";
    until(&lab.client, "all are completed", all).await;
    consumer.shutdown().await.unwrap();
    let ends = "integration.audit_log where action = 'completed'";
    assert_eq!(lab.count(ends).await, 10);
    assert_eq!(count(&lab.client, &format!("select count(distinct staging_id) from {ends}")).await, 10);
    assert!(!logs.has("lease was lost"), "reported lost");
    assert_eq!(lab.proxy.cancels(), 0);
}

#[tokio::test]
async fn effects_of_a_batch_happen_once_wherever_their_commit_is_cut() {
    for cut in [Cut::unanswered("COMMIT"), Cut::unsent("COMMIT")] {
        let lab = Lab::new().await;
        let consumer = lab.broker.consumer("billing");
        let consumer = consumer.on_batch_tx("n", Batch::of(10), |items: Vec<(i64, Delivery)>, tx| {
            async move {
                for (_, delivery) in &items {
                    tx.execute("insert into ledger values ($1, $2)", &[&delivery.id, &delivery.attempt]).await?;
                }
                Ok(BatchOutcome::done())
            }
            .boxed()
        });
        ten_end_once(&lab, cut, consumer).await;
        assert_eq!(lab.count("ledger").await, 10);
        assert_eq!(count(&lab.client, "select count(distinct message_id) from ledger").await, 10);
    }
}

#[tokio::test]
async fn a_batch_whose_settle_is_cut_is_handled_once_and_acknowledged_once() {
    for cut in [Cut::unanswered("integration.complete_many("), Cut::unsent("integration.complete_many(")] {
        let lab = Lab::new().await;
        let handled = Arc::new(AtomicUsize::new(0));
        let counted = handled.clone();
        let consumer =
            lab.broker.consumer("billing").on_batch("n", Batch::of(10), move |items: Vec<(i64, Delivery)>| {
                counted.fetch_add(items.len(), Ordering::SeqCst);
                async { Ok(BatchOutcome::done()) }
            });
        ten_end_once(&lab, cut, consumer).await;
        assert_eq!(handled.load(Ordering::SeqCst), 10);
    }
}
