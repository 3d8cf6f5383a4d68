//! Silence: sockets that stay open while nothing arrives, notifications that never come, servers that do not answer.
//! Sweeps are an hour away in all of these, so that only the listener's own probe can have noticed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorbell::{Broker, BrokerConfig, Consumer, Message, Outcome, Settings};
use doorbell_server::{EphemeralOptions, Server, Shutdown};

use crate::{
    proxy::{Proxy, Weather},
    support::{Database, Seen, bells_only, connect, count, seen, until, until_so},
};

/// As in production, but for the probe: twice a second instead of every ten seconds.
fn config() -> BrokerConfig {
    BrokerConfig {
        ping: Duration::from_millis(500),
        ping_within: Duration::from_millis(500),
        statement_within: Duration::from_secs(2),
        ..Default::default()
    }
}

/// A consumer behind the proxy, and what it handles.
async fn consume(url: &str) -> (Broker, Consumer, Seen<i64>) {
    let broker = Broker::with_config(Settings::parse(url).unwrap(), config()).await.unwrap();
    let (tell, told) = seen();
    let consumer = broker.consumer("billing").config(bells_only()).fallback(move |delivery| {
        tell.send(delivery.id).unwrap();
        async { Ok(Outcome::Done) }
    });
    let consumer = consumer.start().await.unwrap();
    (broker, consumer, told)
}

async fn listens(broker: &Broker, expected: bool) {
    until_so("the listener notices", || broker.is_listening() == expected).await;
}

fn message() -> Message {
    Message::new("billing", "n", &1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_socket_went_silent_is_replaced_and_what_it_missed_is_found() {
    for weather in [
        Weather::STALLED,
        Weather { stall_up: true, ..Weather::default() },
        Weather { stall_down: true, ..Weather::default() },
    ] {
        let db = Database::new().await;
        let proxy = Proxy::to(&db.url).await;
        let (broker, consumer, mut told) = consume(&proxy.url).await;
        listens(&broker, true).await;
        proxy.set(weather);
        let id = db.broker().await.producer("shop").publish(&message()).await.unwrap();
        listens(&broker, false).await;
        proxy.set(Weather::default());
        assert_eq!(told.next().await, id);
        listens(&broker, true).await;
        let id = db.broker().await.producer("shop").publish(&message()).await.unwrap();
        assert_eq!(told.next().await, id);
        consumer.shutdown().await.unwrap();
        assert_eq!(proxy.cancels(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_gets_no_notifications_notices_it_although_it_is_connected() {
    let db = Database::new().await;
    let proxy = Proxy::to(&db.url).await;
    let (broker, consumer, mut told) = consume(&proxy.url).await;
    listens(&broker, true).await;
    proxy.set(Weather::DEAF);
    let id = db.broker().await.producer("shop").publish(&message()).await.unwrap();
    listens(&broker, false).await;
    proxy.set(Weather::default());
    assert_eq!(told.next().await, id);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_refused_twenty_times_comes_back() {
    let db = Database::new().await;
    let proxy = Proxy::to(&db.url).await;
    let (broker, consumer, mut told) = consume(&proxy.url).await;
    listens(&broker, true).await;
    let before = proxy.accepted();
    proxy.refuse(20);
    proxy.reset();
    let id = db.broker().await.producer("shop").publish(&message()).await.unwrap();
    assert_eq!(told.next().await, id);
    listens(&broker, true).await;
    assert!(proxy.accepted() > before + 20, "{} connections", proxy.accepted() - before);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_on_dead_connections_end_and_the_pool_heals() {
    let db = Database::new().await;
    let client = db.client().await;
    let proxy = Proxy::to(&db.url).await;
    let (broker, consumer, mut told) = consume(&proxy.url).await;
    // Every pooled connection is open, and then goes silent for ever: what heals is only for new ones.
    let runs = Arc::new(AtomicUsize::new(0));
    let stats: Vec<_> = (0..10)
        .map(|_| {
            let (broker, runs) = (broker.clone(), runs.clone());
            tokio::spawn(async move { broker.operator().stats().await.map(|_| runs.fetch_add(1, Ordering::SeqCst)) })
        })
        .collect();
    for task in stats {
        task.await.unwrap().unwrap();
    }
    proxy.silence();
    let id = db.broker().await.producer("shop").publish(&message()).await.unwrap();
    assert_eq!(told.next().await, id);
    until(
        &client,
        "it is completed",
        "select exists (select from integration.data_staging where status = 'completed')",
    )
    .await;
    assert_eq!(count(&client, "select max(attempt)::bigint from integration.data_staging").await, 1);
    assert_eq!(proxy.cancels(), 0);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_outlive_a_server_that_freezes_and_goes_on_or_is_restarted() {
    let options = EphemeralOptions { durable: true, ..Default::default() };
    let mut server = Server::ephemeral(options).await.unwrap();
    let url = server.connection_string("postgres");
    Broker::connect(&url).await.unwrap().migrate().await.unwrap();
    let (broker, consumer, mut told) = consume(&url).await;
    for restart in [false, true] {
        listens(&broker, true).await;
        server.pause();
        listens(&broker, false).await;
        if restart {
            server.restart(Shutdown::Immediate).await.unwrap();
        } else {
            server.resume();
        }
        let client = connect(&url).await;
        let insert = "insert into integration.data_staging (source_app, target_app, record_type, data) values ('psql', 'billing', 'n', '1') returning id";
        let id: i64 = client.query_one(insert, &[]).await.unwrap().get(0);
        assert_eq!(told.next().await, id);
        // Else a crash may undo its claim, and it is told again.
        let done = format!("select status = 'completed' from integration.data_staging where id = {id}");
        until(&client, "it is completed", &done).await;
    }
    consumer.shutdown().await.unwrap();
    server.stop().await.unwrap();
}
