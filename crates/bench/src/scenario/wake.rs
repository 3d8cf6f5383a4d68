//! How long an idle consumer sleeps on after the bell, beside what it cannot be faster than.

use std::time::{Duration, Instant};

use doorbell::{ConsumerConfig, Outcome, observe::Found};
use futures::StreamExt;
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::{
    Lab, Result, SOURCE, TARGET,
    floor::{Claimer, Inserter},
    measure::{Case, Effort, Scenario, median, ms_since, number, quantile, say},
    ours::NO_SWEEP,
    raw,
};

const BYTES: usize = 100;

/// Messages of the floor, which our consumer does not see.
const RAW_TARGET: &str = "raw";

/// The consumer has settled and parked again.
const IDLE: Duration = Duration::from_millis(10);

const LOST_AFTER: Duration = Duration::from_secs(10);
const SAMPLES_MIN: usize = 10;
const WARM_UP: usize = 10;

/// All in milliseconds, sample by sample.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    /// From the publisher's acknowledgement to the handler, and from before publishing.
    pub(super) acknowledged: Vec<f64>,
    sent: Vec<f64>,
    /// How many the bell found.
    rung: usize,
    /// A bare NOTIFY: from the sender's acknowledgement to the listener, and from sending.
    notify_acknowledged: Vec<f64>,
    notify_sent: Vec<f64>,
    /// A raw claim of one message, waiting for the disk and not.
    claim: Vec<f64>,
    claim_async: Vec<f64>,
    /// An INSERT with a NOTIFY, and a raw claim as soon as it arrives: from sending to the row.
    raw: Vec<f64>,
    raw_async: Vec<f64>,
}

pub async fn wake(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    lab.clear().await?;
    lab.settle_down().await?;
    let wakes = sample(lab, effort.latencies, true).await?;
    Ok(Scenario::new("wake", settings(effort), wakes.cases()))
}

pub(super) fn settings(effort: &Effort) -> serde_json::Value {
    json!({
        "payload_bytes": BYTES, "seconds": effort.latencies.as_secs_f64(), "idle_ms_before_each": IDLE.as_millis() as u64,
        "acknowledged": "below zero where the handler was entered before the publisher was answered", "sweep": "none: only a bell can wake", "turns": "NOTIFY, raw claims, raw paths and ours, one of each in turn",
    })
}

impl Wakes {
    /// The headline is the strict one: what a listener waits for after the sender was answered, and a flushed claim.
    pub(super) fn cases(&self) -> Vec<Case> {
        let sum = |a: &[f64], b: &[f64]| vec![median(a) + median(b)];
        let of = |name: &str, ours: &[f64], floor: &[f64]| {
            let mut case = Case::new(name, "ms", ours, floor).lower();
            for (name, share) in [("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)] {
                case = case.also(name, quantile(ours, share));
            }
            case.also("p99_to_p50", quantile(ours, 0.99) / median(ours))
        };
        let headline = of("acknowledged to handler", &self.acknowledged, &sum(&self.notify_acknowledged, &self.claim))
            .against("NOTIFY from the sender's acknowledgement to the listener + one raw flushed claim, p50 each")
            .target(1.1)
            .also("notify_acknowledged_p50_ms", median(&self.notify_acknowledged))
            .also("notify_sent_p50_ms", median(&self.notify_sent))
            .also("claim_p50_ms", median(&self.claim))
            .also("claim_async_p50_ms", median(&self.claim_async))
            .also("by_the_bell", self.rung as f64 / self.acknowledged.len() as f64)
            .series("wake_ms", self.acknowledged.clone())
            .series("raw_path_ms", self.raw.clone());
        vec![
            headline,
            of("against the whole round trip", &self.acknowledged, &sum(&self.notify_sent, &self.claim))
                .against("NOTIFY from sending to the listener + one raw flushed claim, p50 each"),
            of("against an asynchronous claim", &self.acknowledged, &sum(&self.notify_acknowledged, &self.claim_async))
                .against(
                    "NOTIFY from the sender's acknowledgement + one raw claim with synchronous_commit off, p50 each",
                ),
            of("p99 against p50", &[quantile(&self.acknowledged, 0.99)], &[median(&self.acknowledged)])
                .against("our own p50")
                .target(3.0),
            of("before publishing to handler, raw path", &self.sent, &self.raw)
                .against("INSERT and NOTIFY by hand, then a raw flushed claim: from sending to the row, measured whole")
                .target(1.1),
            of("before publishing to handler, raw asynchronous path", &self.sent, &self.raw_async)
                .against("the same with synchronous_commit off for the claim"),
        ]
    }
}

/// Measures for so long, everything in turns; without floors: ours alone.
pub(super) async fn sample(lab: &Lab, duration: Duration, floors: bool) -> Result<Wakes> {
    let broker = lab.broker(10).await?;
    let (entered, mut entries) = mpsc::unbounded_channel();
    let config = ConsumerConfig { sweep: NO_SWEEP, ..ConsumerConfig::default() };
    let consumer = broker.consumer(TARGET).config(config).fallback(move |delivery| {
        let _ = entered.send((delivery.id, Instant::now(), delivery.found));
        async { Ok(Outcome::Done) }
    });
    let consumer = consumer.start().await?;
    let producer = broker.producer(SOURCE);
    let message = lab.message(BYTES)?;
    let inserter = Inserter::open(&lab.url, lab.payload(BYTES)).await?;
    let sender = raw(&lab.url).await?;
    let insert = format!(
        "insert into integration.data_staging (source_app, target_app, record_type, data) \
         values ('{SOURCE}', '{RAW_TARGET}', 'order.placed', '{}'); notify raw_path",
        lab.payload(BYTES)
    );
    let (flushed, async_) = (Claimer::open(&lab.url).await?, Claimer::open(&lab.url).await?);
    async_.execute("set synchronous_commit = off").await?;
    let (_ear, mut heard) = listen(lab, "bare").await?;
    let (mut raw_flushed, mut raw_async) = (RawPath::new(lab, &flushed).await?, RawPath::new(lab, &async_).await?);
    let (mut wakes, began, mut turn) = (Wakes::default(), Instant::now(), 0);
    while turn < WARM_UP + SAMPLES_MIN || began.elapsed() < duration {
        turn += 1;
        let mut now = Wakes::default();
        if floors {
            let sent = Instant::now();
            sender.batch_execute("notify bare").await?;
            let acknowledged = Instant::now();
            let at = soon("a NOTIFY", heard.recv()).await?;
            now.notify_sent.push(ms(at - sent));
            now.notify_acknowledged.push(after(acknowledged, at));

            for (claimer, into) in [(&flushed, &mut now.claim), (&async_, &mut now.claim_async)] {
                inserter.insert(RAW_TARGET).await?;
                let began = Instant::now();
                let ids = claimer.claim(RAW_TARGET, 1).await?;
                into.push(ms_since(began));
                claimer.complete(&ids).await?;
            }
            for (path, into) in [(&mut raw_flushed, &mut now.raw), (&mut raw_async, &mut now.raw_async)] {
                tokio::time::sleep(IDLE / 2).await;
                into.push(path.once(&sender, &insert).await?);
            }
        }
        tokio::time::sleep(IDLE).await;
        let sent = Instant::now();
        let published = producer.publish(&message).await?;
        let acknowledged = Instant::now();
        let (at, found) = loop {
            // What was pending before the first turn comes first.
            let (id, at, found) = soon("a message", entries.recv()).await?;
            if id == published {
                break (at, found);
            }
        };
        now.sent.push(ms(at - sent));
        now.acknowledged.push(after(acknowledged, at));
        now.rung = usize::from(found == Found::Bell);
        if turn > WARM_UP {
            wakes.append(now);
        }
    }
    consumer.shutdown().await?;
    broker.close().await;
    if !floors {
        return Ok(wakes);
    }
    say(format_args!(
        "wake: ours {} ms, NOTIFY {} ms, raw claim {} ms ({} asynchronous), raw path {} ms; {} samples",
        number(median(&wakes.acknowledged)),
        number(median(&wakes.notify_acknowledged)),
        number(median(&wakes.claim)),
        number(median(&wakes.claim_async)),
        number(median(&wakes.raw)),
        wakes.acknowledged.len()
    ));
    Ok(wakes)
}

impl Wakes {
    fn append(&mut self, mut other: Self) {
        self.acknowledged.append(&mut other.acknowledged);
        self.sent.append(&mut other.sent);
        self.rung += other.rung;
        self.notify_acknowledged.append(&mut other.notify_acknowledged);
        self.notify_sent.append(&mut other.notify_sent);
        self.claim.append(&mut other.claim);
        self.claim_async.append(&mut other.claim_async);
        self.raw.append(&mut other.raw);
        self.raw_async.append(&mut other.raw_async);
    }
}

/// A hand-written listener that claims as soon as it is told, while the publisher may still wait for its answer.
struct RawPath {
    told: mpsc::UnboundedSender<()>,
    claimed: mpsc::UnboundedReceiver<Result<Instant>>,
}

impl RawPath {
    async fn new(lab: &Lab, claimer: &Claimer) -> Result<Self> {
        let (ear, mut heard) = listen(lab, "raw_path").await?;
        let (told, mut turns) = mpsc::unbounded_channel();
        let (tell, claimed) = mpsc::unbounded_channel();
        let claimer = claimer.clone();
        tokio::spawn(async move {
            let _ear = ear;
            // Both paths hear every NOTIFY; who's turn it is claims.
            while let Some(()) = turns.recv().await {
                while heard.try_recv().is_ok() {}
                let _ = tell.send(Ok(Instant::now()));
                heard.recv().await;
                let ids = claimer.claim(RAW_TARGET, 1).await;
                let at = Instant::now();
                let ended = match ids {
                    Ok(ids) => claimer.complete(&ids).await,
                    Err(error) => Err(error),
                };
                let _ = tell.send(ended.map(|()| at));
            }
        });
        Ok(Self { told, claimed })
    }

    /// From sending the INSERT to the claimed row.
    async fn once(&mut self, sender: &Client, insert: &str) -> Result<f64> {
        self.told.send(()).map_err(|_| "the raw listener has ended")?;
        soon("the raw listener", self.claimed.recv()).await??;
        let sent = Instant::now();
        sender.batch_execute(insert).await?;
        let claimed = soon("a raw wake-up", self.claimed.recv()).await??;
        Ok(ms(claimed - sent))
    }
}

/// A listening session, and when each of its notifications arrived.
pub(super) type Listening = (Client, mpsc::UnboundedReceiver<Instant>);

pub(super) async fn listen(lab: &Lab, channel: &str) -> Result<Listening> {
    let (client, mut connection) = tokio_postgres::connect(&lab.url, NoTls).await?;
    let (tell, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if matches!(message, AsyncMessage::Notification(_)) {
                let _ = tell.send(Instant::now());
            }
        }
    });
    client.batch_execute(&format!("listen {channel}")).await?;
    Ok((client, heard))
}

pub(super) async fn soon<T>(what: &str, event: impl Future<Output = Option<T>>) -> Result<T> {
    match timeout(LOST_AFTER, event).await {
        Ok(Some(value)) => Ok(value),
        _ => Err(format!("{what} did not arrive within {LOST_AFTER:?}").into()),
    }
}

/// Below zero where the listener or handler was faster than the answer to the sender: both go out at the commit.
fn after(acknowledged: Instant, at: Instant) -> f64 {
    match at.checked_duration_since(acknowledged) {
        Some(later) => ms(later),
        None => -ms(acknowledged - at),
    }
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
