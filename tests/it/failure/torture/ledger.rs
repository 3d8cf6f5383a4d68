//! Producers, and their ledger of what was acknowledged, refused, or left open. Kept in this process's memory, outside the
//! database, because a fault may take the database back.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorbell::{Broker, BrokerConfig, ErrorKind, Message, Settings};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio_postgres::{Client, NoTls};

use super::pace;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ack,
    Refused,
    Unknown,
}

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

pub(super) struct Op {
    pub(super) op: String,
    pub(super) target: &'static str,
    pub(super) intent: &'static str,
    pub(super) body: String,
    pub(super) outcome: Outcome,
    pub(super) id: Option<i64>,
    pub(super) key: Option<String>,
    /// Which one of its key it is; nothing where it may come late.
    place: Option<i32>,
    /// The lag of the standby when it was begun; see [`Ledger::lag`].
    lag: usize,
    /// It was under way while the standby lagged, and the server that was promoted did not have it.
    forgettable: bool,
}

#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<Book>);

#[derive(Default)]
struct Book {
    ops: Mutex<Vec<Op>>,
    /// Counts when the standby begins to lag, and when it has been promoted: odd meanwhile.
    lag: AtomicUsize,
    /// What the servers had that were promoted.
    kept: Mutex<HashSet<String>>,
}

impl Ledger {
    pub(super) fn write(&self, mut op: Op) {
        op.forgettable = !op.lag.is_multiple_of(2) || op.lag != self.lag();
        self.0.ops.lock().expect("no panic holds it").push(op);
    }

    pub(super) fn count(&self, outcome: Outcome) -> usize {
        self.0.ops.lock().expect("no panic holds it").iter().filter(|op| op.outcome == outcome).count()
    }

    /// From now on what is acknowledged may not be on the standby; or that is over.
    pub(super) fn standby_lags(&self, begins: bool) {
        assert_eq!(self.0.lag.fetch_add(1, Ordering::SeqCst).is_multiple_of(2), begins, "one lag at a time");
    }

    fn lag(&self) -> usize {
        self.0.lag.load(Ordering::SeqCst)
    }

    /// What a standby has that was just promoted, and may not be lost any more.
    pub(super) fn kept(&self, ops: impl Iterator<Item = String>) {
        self.0.kept.lock().expect("no panic holds it").extend(ops);
    }

    pub(super) async fn load(&self, client: &mut Client) {
        let ops = std::mem::take(&mut *self.0.ops.lock().expect("no panic holds it"));
        let kept = std::mem::take(&mut *self.0.kept.lock().expect("no panic holds it"));
        let tx = client.transaction().await.unwrap();
        let insert = tx.prepare("insert into chk.op values ($1, $2, $3, md5($4), $5, $6, $7, $8, $9)").await.unwrap();
        for op in &ops {
            let (outcome, forgettable) = (op.outcome.name(), op.forgettable && !kept.contains(&op.op));
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 9] =
                [&op.op, &op.target, &op.intent, &op.body, &outcome, &op.id, &forgettable, &op.key, &op.place];
            tx.execute(&insert, &params).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
}

/// Ordering keys that nobody else publishes to, for each publisher.
const KEYS_EACH: usize = 8;
/// Keys that everybody publishes to.
const KEYS_SHARED: usize = 2;

/// A message to be: half for the transactional target, most of them easy. Some have a key: then no slow handler keeps the
/// others waiting, and none blocks it that always fails, where what failed blocks.
fn invent(random: &mut StdRng, name: &str, n: usize, ledger: &Ledger) -> Op {
    let target = if random.random_bool(0.5) { "tx" } else { "plain" };
    let key = match random.random_range(0..100) {
        0..30 => Some(format!("{name}-{}", random.random_range(0..KEYS_EACH))),
        30..34 => Some(format!("shared-{}", random.random_range(0..KEYS_SHARED))),
        _ => None,
    };
    let intent = match random.random_range(0..100) {
        0..7 if key.is_some() && target == "tx" => "done",
        20..26 if key.is_some() => "done",
        0..4 => "fail",
        4..7 => "reject",
        7..17 => "retry",
        17..22 => "snooze",
        22..26 => "slow",
        _ => "done",
    };
    Op {
        op: format!("{name}-{n}"),
        target,
        intent,
        place: key.as_ref().filter(|key| !key.starts_with("shared")).map(|_| n as i32),
        key,
        body: format!("{:032x}", random.random::<u128>()),
        outcome: Outcome::Unknown,
        id: None,
        lag: ledger.lag(),
        forgettable: false,
    }
}

/// Publishes through the library until told to stop.
pub(super) async fn library(url: String, name: String, seed: u64, ledger: Ledger, stop: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(seed);
    let config = BrokerConfig { connections_max: 2, connection_wait: Duration::from_secs(5), ..Default::default() };
    let producer = loop {
        match Broker::with_config(Settings::parse(&url).unwrap(), config.clone()).await {
            Ok(broker) => break broker.producer(name.clone()),
            Err(_) => pace::pause(&mut random, 20, 200).await,
        }
    };
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let mut op = invent(&mut random, &name, n, &ledger);
        let mut message =
            Message::new(op.target, "op", &json!({ "op": op.op, "intent": op.intent, "body": op.body })).unwrap();
        if op.intent == "fail" {
            message = message.max_retries(2);
        }
        if let Some(key) = &op.key {
            message = message.ordering_key(key);
        }
        if random.random_bool(0.1) {
            op.place = None;
            message = message.delay(Duration::from_millis(random.random_range(1..800)));
        }
        let deduplicated = random.random_bool(0.6);
        if deduplicated {
            message = message.dedup_key(&op.op);
        }
        match producer.publish(&message).await {
            Ok(id) => (op.outcome, op.id) = (Outcome::Ack, Some(id)),
            // Under a dedup key it was tried many times, any of which may have happened.
            Err(error) if deduplicated || error.kind() == ErrorKind::OutcomeUnknown => {}
            Err(_) => op.outcome = Outcome::Refused,
        }
        ledger.write(op);
        pace::pause(&mut random, 5, 30).await;
    }
}

/// Inserts as any program would, without a bell, until told to stop.
pub(super) async fn plain_sql(url: String, name: String, seed: u64, ledger: Ledger, stop: Arc<AtomicBool>) {
    const INSERT: &str = "insert into integration.data_staging (source_app, target_app, record_type, data, max_retries, ordering_key) \
                          values ('psql', $1, 'op', $2::text::jsonb, $3, $4) returning id";
    let mut random = StdRng::seed_from_u64(seed);
    let mut session: Option<Client> = None;
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Some(client) = session.as_ref().filter(|client| !client.is_closed()) else {
            session = match tokio_postgres::connect(&url, NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    client.batch_execute("set integration.notify = off").await.is_ok().then_some(client)
                }
                Err(_) => None,
            };
            pace::pause(&mut random, 20, 200).await;
            continue;
        };
        let mut op = invent(&mut random, &name, n, &ledger);
        let payload = json!({ "op": op.op, "intent": op.intent, "body": op.body }).to_string();
        let max_retries: Option<i32> = (op.intent == "fail").then_some(2);
        match client.query_one(INSERT, &[&op.target, &payload, &max_retries, &op.key]).await {
            Ok(row) => (op.outcome, op.id) = (Outcome::Ack, Some(row.get(0))),
            Err(error) if error.as_db_error().is_some() => op.outcome = Outcome::Refused,
            Err(_) => {}
        }
        ledger.write(op);
        pace::pause(&mut random, 10, 60).await;
    }
}
