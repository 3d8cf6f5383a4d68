//! Who uses what stands on messages, beside the producers: a table is written that is captured, questions are asked, and things are
//! said of which only the latest counts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use doorbell::{Answer, Broker, BrokerConfig, Consumer, ConsumerConfig, Message, Outcome, Settings};
use futures::FutureExt;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, NoTls};

use super::pace;

/// Creates what they use, and the rules; after the checker's.
pub(super) const SCHEMA: &str = include_str!("routes.sql");

/// Longer than most outages; who asked is told when it is over.
const WITHIN: Duration = Duration::from_secs(4);

#[derive(Deserialize, Serialize)]
struct Question {
    op: String,
}

/// What was prepared on another connection, or on another server, is ended somehow.
const END: &str = "select format('%s prepared %L', case when random() < 0.5 then 'commit' else 'rollback' end, p.gid) \
    from pg_prepared_xacts p where p.database = current_database() and p.gid like 'stock-%'";

/// Writes into the captured table until told to stop; some of it is undone, and some prepared first.
pub(super) async fn writes(url: String, seed: u64, stop: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut session: Option<Client> = None;
    for round in 0.. {
        let Some(client) = session.as_ref().filter(|client| !client.is_closed()) else {
            session = began(&url).await;
            pace::pause(&mut random, 20, 200).await;
            continue;
        };
        // Nothing that is prepared is left behind.
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let (id, n) = (random.random_range(0..20), random.random_range(0..1000));
        let change = match random.random_range(0..10) {
            0 => format!("delete from chk.stock where id = {id}"),
            1 => format!(
                "update chk.stock set id = id + 20 where id = {id} and not exists (select from chk.stock where id = {id} + 20)"
            ),
            2 => format!("update chk.stock set n = n + 1 where id % 3 = {id} % 3"),
            3 => format!(
                "insert into chk.stock values ({id}, {n}) on conflict (id) do update set n = excluded.n; savepoint s; \
                 delete from chk.stock; rollback to s"
            ),
            _ => format!("insert into chk.stock values ({id}, {n}) on conflict (id) do update set n = excluded.n"),
        };
        let end = if random.random_bool(0.2) { "rollback" } else { "commit" };
        let gid = format!("'stock-{seed}-{round}'");
        let (first, then) = match random.random_bool(0.2) {
            true => (format!("prepare transaction {gid}"), Some(format!("{end} prepared {gid}"))),
            false => (end.to_owned(), None),
        };
        if client.batch_execute(&format!("begin; {change}; {first}")).await.is_err() {
            let _ = client.batch_execute("rollback").await;
        }
        pace::pause(&mut random, 30, 120).await;
        if let Some(then) = then
            && client.batch_execute(&then).await.is_err()
        {
            session = None;
        }
    }
}

/// A session; what an earlier one left prepared has come to an end.
async fn began(url: &str) -> Option<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
    tokio::spawn(connection);
    for row in client.query(END, &[]).await.ok()? {
        client.batch_execute(row.get(0)).await.ok()?;
    }
    Some(client)
}

/// Asks until told to stop; returns the questions that were replied to, and the replies.
pub(super) async fn asks(url: String, seed: u64, stop: Arc<AtomicBool>) -> Vec<(String, String)> {
    let mut random = StdRng::seed_from_u64(seed);
    let config = BrokerConfig { connections_max: 2, connection_wait: Duration::from_secs(5), ..Default::default() };
    let producer = loop {
        match Broker::with_config(Settings::parse(&url).unwrap(), config.clone()).await {
            Ok(broker) => break broker.producer("asker"),
            Err(_) => pace::pause(&mut random, 20, 200).await,
        }
    };
    let mut answered = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let op = format!("question-{n}");
        let message = Message::new("asked", "ask", &Question { op: op.clone() }).unwrap();
        if let Ok(Answer::Reply(reply)) = producer.request::<String>(&message, WITHIN).await {
            answered.push((op, reply));
        }
        pace::pause(&mut random, 30, 120).await;
    }
    answered
}

/// Answers each question with itself.
pub(super) async fn answering(broker: &Broker) -> doorbell::Result<Consumer> {
    let config = ConsumerConfig { concurrency: 2, sweep: Some(Duration::from_secs(1)), ..ConsumerConfig::default() };
    let consumer =
        broker
            .consumer("asked")
            .config(config)
            .on_request("ask", |question: Question, _delivery, replier| async move {
                Ok(replier.reply(&question.op).await?)
            });
    consumer.start().await
}

/// Says things until told to stop, some of them later, or undone.
pub(super) async fn speaks(url: String, seed: u64, stop: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut session: Option<Client> = None;
    while !stop.load(Ordering::SeqCst) {
        let Some(client) = session.as_ref().filter(|client| !client.is_closed()) else {
            session = began(&url).await;
            pace::pause(&mut random, 20, 200).await;
            continue;
        };
        let (key, delay) =
            (random.random_range(1..=5), ["null", "null", "'50 ms'", "'400 ms'"][random.random_range(0..4)]);
        let end = if random.random_bool(0.1) { "rollback" } else { "commit" };
        if client.batch_execute(&format!("begin; select chk.speak('key {key}', {delay}); {end}")).await.is_err() {
            let _ = client.batch_execute("rollback").await;
        }
        pace::pause(&mut random, 5, 60).await;
    }
}

#[derive(Deserialize)]
struct Said {
    key: String,
    n: i32,
}

/// Hears what is said.
pub(super) async fn hearing(broker: &Broker) -> doorbell::Result<Consumer> {
    let config = ConsumerConfig { concurrency: 2, sweep: Some(Duration::from_secs(1)), ..ConsumerConfig::default() };
    let consumer = broker.consumer("latest").config(config).on_tx("say", |said: Said, delivery, tx| {
        let hear = async move {
            tx.execute("insert into chk.heard (key, n, id) values ($1, $2, $3)", &[&said.key, &said.n, &delivery.id])
                .await?;
            Ok(Outcome::Done)
        };
        hear.boxed()
    });
    consumer.start().await
}
