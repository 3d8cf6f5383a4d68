//! The listener: one session per process, and nothing is missed when it dies.

use crate::support::{Database, LISTENERS, echo, listeners, message, plain_insert, until};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_when_the_listening_session_is_killed_while_messages_arrive() {
    let db = Database::new().await;
    let client = db.client().await;
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    let producer = db.broker().await.producer("shop");
    let mut published = Vec::new();
    for round in 0..6 {
        for n in 0..10 {
            published.push(producer.publish(&message("billing", n)).await.unwrap());
            if n == 5 {
                for pid in listeners(&client).await {
                    client.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
                }
            }
        }
        // The last round's messages arrive while nobody listens for certain.
        if round < 5 {
            let mut handled: Vec<i64> = told.take(published.len()).await.iter().map(|delivery| delivery.id).collect();
            handled.sort_unstable();
            assert_eq!(handled, published);
            published.clear();
        }
    }
    let mut handled: Vec<i64> = told.take(published.len()).await.iter().map(|delivery| delivery.id).collect();
    handled.sort_unstable();
    assert_eq!(handled, published);
    // And it is awake again.
    until(&client, "somebody listens again", &format!("select count(*) = 1 from ({LISTENERS}) l")).await;
    plain_insert(&client, "billing", "1").await;
    told.next().await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_targets_of_one_process_share_one_listening_session() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let mut consumers = Vec::new();
    for n in 0..50 {
        consumers.push(echo(&broker, &format!("target {n}")).await);
    }
    for (n, (_, told)) in consumers.iter_mut().enumerate() {
        let id = plain_insert(&client, &format!("target {n}"), "1").await;
        assert_eq!(told.next().await.id, id);
    }
    assert_eq!(listeners(&client).await.len(), 1);
    for (consumer, _) in consumers {
        consumer.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_started_and_stopped_leaves_the_others_bells_alone() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let (stays, mut told) = echo(&broker, "billing").await;
    for _ in 0..3 {
        let (leaves, _told) = echo(&broker, "billing").await;
        leaves.shutdown().await.unwrap();
        plain_insert(&client, "billing", "1").await;
        told.next().await;
    }
    stays.shutdown().await.unwrap();
}
