//! What an observer and a propagator are told, without any metrics or tracing system.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use doorbell::{
    Broker, BrokerConfig, Headers, Message, Outcome,
    observe::{Event, Observer, Propagator},
};
use tracing::Span;

use crate::support::{Database, bells_only, echo, message, plain_insert, seen, until_so, until_status};

/// Remembers what it was told, one line each.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    async fn until(&self, line: &str) {
        until_so(&format!("it is told {line:?}"), || self.all().iter().any(|told| told == line)).await;
    }
}

impl Observer for Told {
    fn observe(&self, event: &Event<'_>) {
        let error = |error: Option<&doorbell::Error>| error.map(doorbell::Error::kind);
        let line = match *event {
            Event::Published { target, messages, error: e, .. } => {
                format!("published {messages} for {target}, {:?}", error(e))
            }
            Event::Claimed { messages: 0, .. } => return,
            Event::Claimed { target, messages, error: e, .. } => {
                format!("claimed {messages} of {target}, {:?}", error(e))
            }
            Event::Started { target, record_type, .. } => format!("started {record_type} of {target}"),
            Event::Processed { target, record_type, outcome, .. } => {
                format!("processed {record_type} of {target}: {outcome:?}")
            }
            Event::Settled { target, messages, error: e, .. } => {
                format!("settled {messages} of {target}, {:?}", error(e))
            }
            Event::LeaseLost { target, messages } => format!("lost {messages} of {target}"),
            Event::Listening { up, sessions } => format!("listening {up}, session {sessions}"),
            _ => format!("{event:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

async fn observed(db: &Database) -> (Broker, Told) {
    let told = Told::default();
    let config = BrokerConfig { observer: Some(Arc::new(told.clone())), ..BrokerConfig::default() };
    (db.broker_with(config).await, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_is_told_each_station_of_a_message() {
    let db = Database::new().await;
    let (broker, told) = observed(&db).await;
    let billing = broker
        .consumer("billing")
        .config(bells_only())
        .on("n", |n: i64, _| async move { if n == 1 { Ok(Outcome::Done) } else { Ok(Outcome::reject("odd")) } });
    let consumer = billing.fallback(|_| async { Ok(Outcome::Done) }).start().await.unwrap();
    told.until("listening true, session 1").await;
    let producer = broker.producer("shop");
    let id = producer.publish(&message("billing", 1)).await.unwrap();
    until_status(&db.client().await, id, "completed").await;
    told.until("settled 1 of billing, None").await;
    let stations: Vec<_> = told.all().into_iter().filter(|line| !line.starts_with("listening")).collect();
    let published = "published 1 for billing, None".to_owned();
    assert!(stations.contains(&published), "{stations:?}");
    // Its publisher may be told after its consumer is.
    let stations: Vec<_> = stations.into_iter().filter(|line| *line != published).collect();
    assert_eq!(
        stations,
        [
            "claimed 1 of billing, None",
            "started n of billing",
            "processed n of billing: Done",
            "settled 1 of billing, None"
        ]
    );
    let in_tx =
        broker.consumer("ledger").config(bells_only()).on_tx("n", |_: i64, _, _| Box::pin(async { Ok(Outcome::Done) }));
    let in_tx = in_tx.start().await.unwrap();
    producer.publish(&message("ledger", 1)).await.unwrap();
    told.until("processed n of ledger: Done").await;
    told.until("settled 1 of ledger, None").await;
    in_tx.shutdown().await.unwrap();
    // A batch counts for each of its targets; a type without a handler of its own has no name.
    let other = Message::new("billing", "anything-at-all", &1).unwrap();
    producer.publish_many(&[message("a", 1), other, message("a", 2)]).await.unwrap();
    told.until("published 2 for a, None").await;
    told.until("published 1 for billing, None").await;
    told.until("processed other of billing: Done").await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_is_told_of_failures_and_lost_leases() {
    let db = Database::new().await;
    let client = db.client().await;
    let (broker, told) = observed(&db).await;
    client
        .batch_execute("alter table integration.data_staging add constraint no check (target_app <> 'no')")
        .await
        .unwrap();
    broker.producer("shop").publish(&message("no", 1)).await.unwrap_err();
    told.until("published 0 for no, Some(Database)").await;

    let (tell, mut begun) = seen();
    let release = Arc::new(tokio::sync::Notify::new());
    let released = release.clone();
    let consumer = broker.consumer("billing").config(bells_only()).fallback(move |delivery| {
        let _ = tell.send(delivery.id);
        let released = released.clone();
        async move {
            released.notified().await;
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    plain_insert(&client, "billing", "1").await;
    let id = begun.next().await;
    // Somebody decides otherwise while it runs.
    client.execute("select integration.cancel(array[$1::bigint])", &[&id]).await.unwrap();
    release.notify_one();
    told.until("lost 1 of billing").await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_a_message_is_the_servers_reckoning() {
    let db = Database::new().await;
    let client = db.client().await;
    let hour_ago = "insert into integration.data_staging (source_app, target_app, record_type, data, created_at) \
        values ('psql', 'billing', 'n', '1', integration.clock() - interval '1 hour')";
    client.execute(hour_ago, &[]).await.unwrap();
    // Replaced together with what it is compared with, the clock may be wrong by years.
    let clock = "create or replace function integration.clock() returns timestamptz language sql volatile \
        return clock_timestamp() - interval '10 years'";
    client.batch_execute(clock).await.unwrap();
    client
        .batch_execute("update integration.data_staging set created_at = created_at - interval '10 years'")
        .await
        .unwrap();
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    let age = told.next().await.age;
    assert!(age > Duration::from_secs(3600) && age < Duration::from_secs(7200), "{age:?}");
    consumer.shutdown().await.unwrap();
}

/// Calls the trace of every publish `trace-1` and notes what it is asked to link.
#[derive(Clone, Debug, Default)]
struct Tracer(Arc<Mutex<Vec<Option<String>>>>);

impl Propagator for Tracer {
    fn inject(&self, _: &Span, headers: &mut Headers) {
        headers.insert("traceparent".into(), "trace-1".into());
    }

    fn link(&self, _: &Span, headers: &Headers) {
        self.0.lock().unwrap().push(headers.get("traceparent").cloned());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_links_to_the_trace_of_the_publisher_and_callers_headers_win() {
    let db = Database::new().await;
    let tracer = Tracer::default();
    let config = BrokerConfig { propagator: Some(Arc::new(tracer.clone())), ..BrokerConfig::default() };
    let broker = db.broker_with(config).await;
    let consumer = broker.consumer("billing").config(bells_only()).fallback(|delivery| async move {
        match delivery.attempt {
            1 => Ok(Outcome::retry_after(Duration::ZERO, "once more")),
            _ => Ok(Outcome::Done),
        }
    });
    let consumer = consumer.start().await.unwrap();
    let (producer, client) = (broker.producer("shop"), db.client().await);
    let id = producer.publish(&message("billing", 1)).await.unwrap();
    until_status(&client, id, "completed").await;
    let own = message("billing", 2).header("traceparent", "trace-2");
    let ids = producer.publish_many(&[own, message("billing", 3)]).await.unwrap();
    for id in ids {
        until_status(&client, id, "completed").await;
    }
    consumer.shutdown().await.unwrap();
    let mut linked: Vec<_> = tracer.0.lock().unwrap().iter().flatten().cloned().collect();
    linked.sort();
    assert_eq!(linked, ["trace-1", "trace-1", "trace-1", "trace-1", "trace-2", "trace-2"]);
}
