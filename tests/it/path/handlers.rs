//! Handlers: who gets what, and what becomes of a message whose handler did not succeed.

use std::time::Duration;

use doorbell::{Consumer, ConsumerConfig, Delivery, Handler, HandlerResult, Message, Outcome, UnknownType};
use serde::Deserialize;
use serde_json::json;

use crate::support::{Database, HOUR, bells_only, message, plain_insert, row, seen, until_count, until_status};

#[derive(Debug, Deserialize)]
struct Order {
    id: u64,
}

struct Named(tokio::sync::mpsc::UnboundedSender<String>);

#[async_trait::async_trait]
impl Handler for Named {
    async fn handle(&self, delivery: Delivery) -> HandlerResult {
        self.0.send(format!("trait {}", delivery.record_type))?;
        Ok(Outcome::Done)
    }
}

/// A consumer whose every message has this outcome.
async fn always<F>(db: &Database, outcome: F) -> Consumer
where
    F: Fn(Delivery) -> HandlerResult + Send + Sync + 'static,
{
    let consumer = db.broker().await.consumer("billing").config(bells_only()).fallback(move |delivery| {
        let outcome = outcome(delivery);
        async { outcome }
    });
    consumer.start().await.unwrap()
}

async fn publish(db: &Database, message: &Message) -> i64 {
    db.broker().await.producer("shop").publish(message).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn closures_handler_types_and_the_fallback_each_get_their_record_types() {
    let db = Database::new().await;
    let (tell, mut told) = seen();
    let (closure, fallback) = (tell.clone(), tell.clone());
    let consumer = db
        .broker()
        .await
        .consumer("billing")
        .config(bells_only())
        .on("order", move |order: Order, delivery| {
            let sent = closure.send(format!("closure {} {}", delivery.record_type, order.id));
            async move { sent.map(|()| Outcome::Done).map_err(Into::into) }
        })
        .handler("refund", Named(tell))
        .fallback(move |delivery| {
            let sent = fallback.send(format!("fallback {} {}", delivery.record_type, delivery.payload()));
            async move { sent.map(|()| Outcome::Done).map_err(Into::into) }
        })
        .start()
        .await
        .unwrap();
    for record_type in ["order", "refund", "Order"] {
        publish(&db, &Message::new("billing", record_type, &json!({ "id": 7 })).unwrap()).await;
    }
    let mut all = told.take(3).await;
    all.sort();
    assert_eq!(all, ["closure order 7", "fallback Order {\"id\": 7}", "trait refund"]);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_record_type_is_failed_with_a_reason_that_names_it() {
    let db = Database::new().await;
    let consumer = db
        .broker()
        .await
        .consumer("billing")
        .config(bells_only())
        .on("order", |_: Order, _| async { Ok(Outcome::Done) });
    let consumer = consumer.start().await.unwrap();
    let id = publish(&db, &message("billing", 1)).await;
    let failed = until_status(&db.client().await, id, "failed").await;
    assert_eq!(failed.reason(), "no handler for record type \"n\"");
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_record_type_waits_for_a_newer_consumer_where_it_shall() {
    let db = Database::new().await;
    let config = ConsumerConfig { sweep: HOUR, unknown_type: UnknownType::Retry, ..Default::default() };
    let client = db.client().await;
    client.execute("update integration.settings set backoff_base_ms = 864000000", &[]).await.unwrap();
    let consumer =
        db.broker().await.consumer("billing").config(config).on("order", |_: Order, _| async { Ok(Outcome::Done) });
    let consumer = consumer.start().await.unwrap();
    let id = publish(&db, &message("billing", 1)).await;
    let waiting = until_status(&client, id, "scheduled").await;
    assert_eq!((waiting.retry_count, waiting.reason()), (1, "no handler for record type \"n\""));
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_payloads_fail_alone() {
    let db = Database::new().await;
    let client = db.client().await;
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let mut unreadable = Vec::new();
    for data in ["1e400", "{\"id\": 1e400}", "{\"id\": \"seven\"}", "null", &deep] {
        plain_insert(&client, "billing", "{\"id\": 1}").await;
        unreadable.push(plain_insert(&client, "billing", data).await);
    }
    let consumer =
        db.broker().await.consumer("billing").config(bells_only()).on("n", |_: Order, _| async { Ok(Outcome::Done) });
    let consumer = consumer.start().await.unwrap();
    until_count(&client, "completed", 5).await;
    for id in unreadable {
        let failed = until_status(&client, id, "failed").await;
        assert!(failed.reason().starts_with("the payload cannot be read as"), "{failed:?}");
        assert_eq!((failed.attempt, failed.owner), (1, None));
    }
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_retried_after_the_backoff_and_keeps_its_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("card not charged")]
    struct Outer(#[source] std::num::ParseIntError);
    let db = Database::new().await;
    let client = db.client().await;
    // Ten days, so that full jitter almost surely leaves more than a second.
    let slow = "update integration.settings set backoff_base_ms = 864000000, backoff_cap_ms = 864000000";
    client.execute(slow, &[]).await.unwrap();
    let consumer = always(&db, |_| Err(Outer("x".parse::<i32>().unwrap_err()).into())).await;
    let id = publish(&db, &message("billing", 1)).await;
    let failed = until_status(&client, id, "scheduled").await;
    assert_eq!(failed.reason(), "card not charged: invalid digit found in string");
    assert_eq!((failed.attempt, failed.retry_count, &failed.owner), (1, 1, &None));
    let wait = failed.scheduled_in.unwrap();
    assert!(wait > 1.0 && wait <= 864_000.0, "{wait}");
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_decide_what_becomes_of_the_message() {
    let db = Database::new().await;
    let client = db.client().await;
    let consumer = always(&db, |delivery| {
        Ok(match delivery.json::<i64>()? {
            1 => Outcome::retry_after(Duration::from_secs(5000), "later"),
            2 => Outcome::snooze(Duration::from_secs(6000)),
            3 => Outcome::snooze(Duration::MAX),
            _ => Outcome::reject("never"),
        })
    })
    .await;
    let mut ids = Vec::new();
    for n in 1..=4 {
        ids.push(publish(&db, &message("billing", n)).await);
    }
    let retried = until_status(&client, ids[0], "scheduled").await;
    assert_eq!((retried.retry_count, retried.scheduled_in, retried.reason()), (1, Some(5000.0), "later"));
    let snoozed = until_status(&client, ids[1], "scheduled").await;
    assert_eq!((snoozed.retry_count, snoozed.scheduled_in, snoozed.error), (0, Some(6000.0), None));
    let snoozed = until_status(&client, ids[2], "scheduled").await;
    assert_eq!(snoozed.retry_count, 0);
    let rejected = until_status(&client, ids[3], "failed").await;
    assert_eq!((rejected.attempt, rejected.reason()), (1, "never"));
    consumer.shutdown().await.unwrap();
}

/// Makes retries follow at once.
const NO_BACKOFF: &str = "update integration.settings set backoff_base_ms = 0";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_failed_for_good_when_three_retries_did_not_help() {
    let db = Database::new().await;
    let client = db.client().await;
    client.execute(NO_BACKOFF, &[]).await.unwrap();
    let (tell, mut told) = seen();
    let consumer = always(&db, move |delivery| {
        tell.send((delivery.attempt, delivery.retry_count))?;
        Err(format!("run {}", delivery.attempt).into())
    })
    .await;
    let id = publish(&db, &message("billing", 1)).await;
    assert_eq!(told.take(4).await, [(1, 0), (2, 1), (3, 2), (4, 3)]);
    let failed = until_status(&client, id, "failed").await;
    assert_eq!((failed.attempt, failed.retry_count, failed.reason()), (4, 4, "run 4"));
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_limited_by_the_message_then_its_type_then_the_target() {
    let db = Database::new().await;
    let client = db.client().await;
    client.execute(NO_BACKOFF, &[]).await.unwrap();
    let limits = "insert into integration.targets (target_app, max_retries) values ('billing', 1); \
        insert into integration.retry_policies (target_app, record_type, max_retries) values ('billing', 'typed', 2)";
    client.batch_execute(limits).await.unwrap();
    let consumer = always(&db, |_| Err("no".into())).await;
    let of_target = publish(&db, &message("billing", 1)).await;
    let of_type = publish(&db, &Message::new("billing", "typed", &1).unwrap()).await;
    let own = publish(&db, &Message::new("billing", "typed", &1).unwrap().max_retries(5)).await;
    let none = publish(&db, &message("billing", 1).max_retries(0)).await;
    for (id, attempts) in [(of_target, 2), (of_type, 3), (own, 6), (none, 1)] {
        assert_eq!(until_status(&client, id, "failed").await.attempt, attempts);
    }
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_its_message_and_the_consumer_lives_on() {
    let db = Database::new().await;
    let client = db.client().await;
    let consumer = always(&db, |delivery| match delivery.json::<i64>()? {
        1 => panic!("no such currency: {}", "XXX"),
        2 => std::panic::panic_any(7),
        _ => Ok(Outcome::Done),
    })
    .await;
    let formatted = publish(&db, &message("billing", 1).max_retries(0)).await;
    let any = publish(&db, &message("billing", 2).max_retries(0)).await;
    assert_eq!(until_status(&client, formatted, "failed").await.reason(), "panicked: no such currency: XXX");
    assert_eq!(until_status(&client, any, "failed").await.reason(), "panicked: (no message)");
    let next = publish(&db, &message("billing", 3)).await;
    until_status(&client, next, "completed").await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_takes_too_long_is_dropped_even_when_it_blocks_its_thread() {
    let db = Database::new().await;
    let client = db.client().await;
    // A blocked thread may be the one that was waiting for the runtime's timers and sockets; this one keeps asking them.
    let awake = tokio::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Arc::new(std::sync::Mutex::new(released));
    let consumer = db
        .broker()
        .await
        .consumer("billing")
        .config(ConsumerConfig { handler_timeout: Some(Duration::from_millis(100)), ..bells_only() });
    let consumer = consumer.on("n", move |n: i64, _| {
        let released = released.clone();
        async move {
            if n == 1 {
                std::future::pending::<()>().await;
            }
            // Blocks a thread of the runtime, as no handler should.
            let _ = released.lock().unwrap().recv();
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    let waiting = publish(&db, &message("billing", 1).max_retries(0)).await;
    assert_eq!(until_status(&client, waiting, "failed").await.reason(), "timed out after 0.1 s");
    let blocking = publish(&db, &message("billing", 2).max_retries(0)).await;
    let failed = until_status(&client, blocking, "failed").await;
    assert_eq!(failed.reason(), "timed out after 0.1 s and did not stop");
    // What it says in the end comes too late.
    release.send(()).unwrap();
    awake.abort();
    consumer.shutdown().await.unwrap();
    assert_eq!(row(&client, blocking).await.status, "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn reasons_are_stored_without_control_characters_and_bounded() {
    let db = Database::new().await;
    let client = db.client().await;
    let consumer = always(&db, |delivery| match delivery.json::<i64>()? {
        1 => Err("a\0b\u{1b}[31mc\u{7f}d\u{9b}31me\nf\tg".into()),
        _ => Err("𝕏".repeat(10 << 20 >> 2).into()),
    })
    .await;
    let dirty = publish(&db, &message("billing", 1).max_retries(0)).await;
    assert_eq!(until_status(&client, dirty, "failed").await.reason(), "ab[31mcd31me\nf\tg");
    let huge = publish(&db, &message("billing", 2).max_retries(0)).await;
    assert_eq!(until_status(&client, huge, "failed").await.reason().chars().count(), 8000);
    consumer.shutdown().await.unwrap();
}
