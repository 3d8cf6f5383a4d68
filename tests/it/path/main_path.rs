//! The main path: published, announced, claimed, handled, settled.

use doorbell::{Message, observe::Found};
use serde_json::{Value, json};

use crate::support::{Database, count, echo, until, until_a_bell};

#[tokio::test(flavor = "multi_thread")]
async fn a_published_message_wakes_an_idle_consumer_that_sweeps_once_an_hour() {
    let db = Database::new().await;
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    let producer = db.broker().await.producer("shop");
    let before = until_a_bell(&producer, "billing", &mut told).await;
    for n in 0..20 {
        let message = Message::new("billing", "order.placed", &json!({ "n": n }))
            .unwrap()
            .header("traceparent", "00-1")
            .priority(3);
        let id = producer.publish(&message).await.unwrap();
        let delivery = told.next().await;
        assert_eq!((delivery.id, delivery.attempt, delivery.source.as_str(), delivery.priority), (id, 1, "shop", 3));
        assert_eq!(delivery.json::<Value>().unwrap(), json!({ "n": n }));
        assert_eq!(delivery.headers["traceparent"], "00-1");
        // With an hour between sweeps nothing else finds it.
        assert_ne!(delivery.found, Found::Sweep, "{delivery:?}");
    }
    consumer.shutdown().await.unwrap();
    let client = db.client().await;
    let completed =
        "select count(*) from integration.data_staging where status = 'completed' and processed_at is not null";
    assert_eq!(count(&client, completed).await as usize, 20 + before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_insert_wakes_an_idle_consumer() {
    let db = Database::new().await;
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    let client = db.client().await;
    let sql = "insert into integration.data_staging (source_app, target_app, record_type, data) values ('psql', 'billing', 'x', '{\"a\": 1}')";
    client.execute(sql, &[]).await.unwrap();
    assert_eq!(told.next().await.record_type, "x");
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_messages_are_each_handled_once_by_two_consumers() {
    let db = Database::new().await;
    let messages: Vec<Message> = (0..20_000).map(|n| Message::new("billing", "n", &n).unwrap()).collect();
    let ids = db.broker().await.producer("shop").publish_many(&messages).await.unwrap();
    let (one, mut told_one) = echo(&db.broker().await, "billing").await;
    let (two, mut told_two) = echo(&db.broker().await, "billing").await;
    let client = db.client().await;
    until(
        &client,
        "all are completed",
        "select count(*) = 20000 from integration.data_staging where status = 'completed'",
    )
    .await;
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
    let mut handled: Vec<i64> = told_one.rest().chain(told_two.rest()).map(|delivery| delivery.id).collect();
    handled.sort_unstable();
    assert_eq!(handled, ids);
    assert_eq!(count(&client, "select max(attempt)::bigint from integration.data_staging").await, 1);
}
