//! The roles of the page about deploying, each with what stands there and nothing else.

use std::time::Duration;

use doorbell::{
    Broker, Message,
    doctor::{Level, Options},
};

use crate::support::{Database, connect, count, echo, grants, plain_insert, until};

/// A broker whose role has the grants of a publisher, a consumer or an operator.
async fn broker_of(db: &Database, to: &str) -> Broker {
    let role = format!("{to}_{}", db.name());
    let made = format!("create role {role} login; {}", grants(to, &role));
    db.client().await.batch_execute(&made).await.unwrap();
    Broker::connect(&db.url.replace("user=postgres", &format!("user={role}"))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_a_publisher_and_of_a_consumer_are_enough_for_a_message_to_arrive() {
    let db = Database::new().await;
    let (publisher, consumer) = (broker_of(&db, "publisher").await, broker_of(&db, "consumer").await);
    let (running, mut told) = echo(&consumer, "billing").await;
    let producer = publisher.producer("shop");
    let message = |n: u32| Message::new("billing", "order.placed", &n).unwrap();
    producer.publish(&message(1)).await.unwrap();
    producer.publish(&message(2).delay(Duration::from_millis(1))).await.unwrap();
    producer.publish(&message(3).dedup_key("order-3")).await.unwrap();
    producer.publish_many(&(4..=200).map(message).collect::<Vec<_>>()).await.unwrap();
    let client = db.client().await;
    until(
        &client,
        "all are completed",
        "select count(*) = 200 from integration.data_staging where status = 'completed'",
    )
    .await;
    running.shutdown().await.unwrap();
    consumer.close().await;
    assert_eq!(told.rest().count(), 200);
    assert_eq!(count(&client, "select count(*) from integration.processes").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_may_call_functions_by_default_the_same_rights_are_enough() {
    let db = Database::empty().await;
    let revoked = "alter default privileges revoke execute on functions from public";
    db.client().await.batch_execute(revoked).await.unwrap();
    db.broker().await.migrate().await.unwrap();
    let (publisher, consumer) = (broker_of(&db, "publisher").await, broker_of(&db, "consumer").await);
    let (running, mut told) = echo(&consumer, "billing").await;
    let plain = connect(&db.url.replace("user=postgres", &format!("user=publisher_{}", db.name()))).await;
    let id = plain_insert(&plain, "billing", "1").await;
    assert_eq!(told.next().await.id, id);
    running.shutdown().await.unwrap();
    for broker in [publisher, consumer] {
        let report = broker.operator().doctor(&Options::default()).await.unwrap();
        let of_rights = report.findings.iter().filter(|finding| ["privileges", "trial"].contains(&finding.check));
        assert!(
            of_rights.clone().count() >= 2 && of_rights.clone().all(|finding| finding.level == Level::Ok),
            "{report:#?}"
        );
        broker.close().await;
    }
}
