//! The circuit breaker of a target: opened by failures or by a handler's word, shared by the fleet, closed by canaries.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use doorbell::{Broker, Consumer, ConsumerConfig, Message, Outcome};

use crate::support::{Database, bells_only, count, until};

async fn consume(broker: &Broker, target: &str, down: Arc<AtomicBool>, says_so: bool) -> Consumer {
    broker
        .consumer(target)
        .config(ConsumerConfig { concurrency: 4, ..bells_only() })
        .fallback(move |_| {
            let down = down.load(Ordering::SeqCst);
            async move {
                match (down, says_so) {
                    (false, _) => Ok(Outcome::Done),
                    (true, true) => Ok(Outcome::unavailable("the card processor is down")),
                    (true, false) => Err("connection refused".into()),
                }
            }
        })
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_says_its_dependency_is_down_opens_the_breaker_and_costs_no_retry() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("update integration.settings set breaker_open_for = '200 ms'").await.unwrap();
    let (one, two) = (db.broker().await, db.broker().await);
    let down = Arc::new(AtomicBool::new(true));
    let consumers =
        [consume(&one, "billing", down.clone(), true).await, consume(&two, "billing", down.clone(), true).await];
    let other = consume(&one, "shipping", down.clone(), true).await;
    let messages: Vec<Message> = (0..50).map(|n| Message::new("billing", "n", &n).unwrap()).collect();
    one.producer("shop").publish_many(&messages).await.unwrap();
    until(
        &client,
        "the breaker opened twice",
        "select count(*) >= 2 from integration.audit_log where action = 'breaker_open'",
    )
    .await;
    assert_eq!(count(&client, "select sum(retry_count) from integration.data_staging").await, 0);
    down.store(false, Ordering::SeqCst);
    let id = one.producer("shop").publish(&Message::new("shipping", "n", &1).unwrap()).await.unwrap();
    until(
        &client,
        "the other target goes on",
        &format!("select status = 'completed' from integration.data_staging where id = {id}"),
    )
    .await;
    until(
        &client,
        "all are completed",
        "select count(*) = 51 from integration.data_staging where status = 'completed'",
    )
    .await;
    assert_eq!(count(&client, "select sum(retry_count) from integration.data_staging").await, 0);
    assert_eq!(
        count(&client, "select count(*) from integration.breakers where breaker_key = 'billing' and state = 'closed'")
            .await,
        1
    );
    assert_eq!(count(&client, "select count(*) from integration.audit_log where action = 'breaker_closed'").await, 1);
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
    other.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_open_the_breaker_and_canaries_close_it_again() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute("update integration.settings set breaker_open_for = '100 ms', breaker_samples_min = 5, backoff_base_ms = 10, max_retries = 1000")
        .await
        .unwrap();
    let broker = db.broker().await;
    let down = Arc::new(AtomicBool::new(true));
    let consumer = consume(&broker, "billing", down.clone(), false).await;
    let messages: Vec<Message> = (0..30).map(|n| Message::new("billing", "n", &n).unwrap()).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    until(
        &client,
        "the breaker opened",
        "select exists (select from integration.audit_log where action = 'breaker_open')",
    )
    .await;
    down.store(false, Ordering::SeqCst);
    until(
        &client,
        "all are completed",
        "select count(*) = 30 from integration.data_staging where status = 'completed'",
    )
    .await;
    until(
        &client,
        "the breaker closed",
        "select state = 'closed' from integration.breakers where breaker_key = 'billing'",
    )
    .await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opened_by_hand_stays_open_until_it_is_closed_by_hand() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    client
        .batch_execute("insert into integration.targets (target_app, breaker_key) values ('billing', 'cards'), ('refunds', 'cards')")
        .await
        .unwrap();
    broker.operator().open_breaker("cards", Some("maintenance"), None).await.unwrap();
    let down = Arc::new(AtomicBool::new(false));
    let consumers =
        [consume(&broker, "billing", down.clone(), false).await, consume(&broker, "refunds", down, false).await];
    for target in ["billing", "refunds", "other"] {
        broker.producer("shop").publish(&Message::new(target, "n", &1).unwrap()).await.unwrap();
    }
    let claimable = "select count(*) from (values ('billing'), ('refunds'), ('other')) t(x), integration.claim(x, 'probe', 1, p_lease => '1 s')";
    assert_eq!(count(&client, claimable).await, 1);
    assert!(broker.operator().close_breaker("cards", None).await.unwrap());
    until(
        &client,
        "both are completed",
        "select count(*) = 2 from integration.data_staging where status = 'completed'",
    )
    .await;
    assert!(!broker.operator().close_breaker("cards", None).await.unwrap());
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
}
