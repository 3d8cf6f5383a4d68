//! Metrics for Prometheus: an [`Observer`] that counts, and what the database says at a scrape.

mod fleet;
mod labels;
mod names;
mod sources;

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicI64},
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use self::{
    fleet::Fleet,
    labels::{Asked, Look, Operation, Run, Target},
    names::{
        BATCH, BUILD, CONSUMED, END_TO_END, ERRORED, FAILED_BATCHES, FOUND, LEASE_LOSSES, LISTENER_RECONNECTS,
        LISTENER_UP, LOOKS, OPERATION_DURATION, PROCESS_DURATION, RATE_CUTS, REJECTED, REQUEST_DURATION, RESCUED,
        RUNTIME_BLOCKED, SENT, SETTLED,
    },
};
use crate::{
    broker::Broker,
    error::Error,
    outcome::Outcome,
    telemetry::{Event, Observer},
};

/// OpenTelemetry's advice for durations in seconds, and three below: a wake-up takes less than a millisecond.
const SECONDS: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Of batches.
const SIZES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
/// Messages may wait for long.
const AGES: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0, 86400.0];

/// Metrics in Prometheus' text format (OpenMetrics). Give it to a broker as its
/// [`observer`](crate::BrokerConfig::observer) and answer scrapes with [`scrape`](Self::scrape); one may serve several
/// brokers of one database. `docs/metrics.md` lists the families. Labels are targets, record types that have a handler of
/// their own, and closed lists: never ids.
///
/// ```no_run
/// # async fn example() -> Result<(), doorbell::Error> {
/// use std::sync::Arc;
/// use doorbell::{Broker, BrokerConfig, Settings, observe::Metrics};
///
/// let metrics = Arc::new(Metrics::new());
/// let config = BrokerConfig { observer: Some(metrics.clone()), ..BrokerConfig::default() };
/// let broker = Broker::with_config(Settings::from_env()?, config).await?;
/// let body = metrics.scrape(&broker).await; // in the handler of GET /metrics, as Metrics::CONTENT_TYPE
/// # Ok(())
/// # }
/// ```
pub struct Metrics {
    registry: Registry,
    fleet: tokio::sync::Mutex<Fleet>,
    /// Names that became labels, so that counting allocates nothing.
    names: RwLock<HashSet<Arc<str>>>,
    operation: Family<Operation, Histogram, fn() -> Histogram>,
    process: Family<Run, Histogram, fn() -> Histogram>,
    end_to_end: Family<Target, Histogram, fn() -> Histogram>,
    requests: Family<Asked, Histogram, fn() -> Histogram>,
    sent: Family<Target, Counter>,
    rejected: Family<Target, Counter>,
    consumed: Family<Target, Counter>,
    settled: Family<Target, Counter>,
    errored: Family<Target, Counter>,
    lease_losses: Family<Target, Counter>,
    batch: Family<Target, Histogram, fn() -> Histogram>,
    failed_batches: Family<Target, Counter>,
    rate_cuts: Family<Target, Counter>,
    looks: Family<Look, Counter>,
    found: Family<Look, Counter>,
    rescued: Counter,
    reconnects: Counter,
    listener_up: Gauge<i64, AtomicI64>,
    runtime_blocked: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// What the answer to a scrape is, for its `Content-Type` header.
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let fleet = tokio::sync::Mutex::new(Fleet::register(&mut registry));
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let ages: fn() -> Histogram = || Histogram::new(AGES);
        let sizes: fn() -> Histogram = || Histogram::new(SIZES);
        let metrics = Self {
            fleet,
            names: RwLock::default(),
            operation: Family::new_with_constructor(seconds),
            process: Family::new_with_constructor(seconds),
            end_to_end: Family::new_with_constructor(ages),
            requests: Family::new_with_constructor(ages),
            sent: Family::default(),
            rejected: Family::default(),
            consumed: Family::default(),
            settled: Family::default(),
            errored: Family::default(),
            lease_losses: Family::default(),
            batch: Family::new_with_constructor(sizes),
            failed_batches: Family::default(),
            rate_cuts: Family::default(),
            looks: Family::default(),
            found: Family::default(),
            rescued: Counter::default(),
            reconnects: Counter::default(),
            listener_up: Gauge::default(),
            runtime_blocked: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register(
            OPERATION_DURATION,
            "Publishes (send), claims (receive) and settles, by how they ended",
            metrics.operation.clone(),
        );
        registry.register(PROCESS_DURATION, "Runs of handlers", metrics.process.clone());
        registry.register(
            END_TO_END,
            "From publishing to the handler of the first attempt",
            metrics.end_to_end.clone(),
        );
        registry.register(REQUEST_DURATION, "Requests, by how they were answered", metrics.requests.clone());
        registry.register(SENT, "Messages published", metrics.sent.clone());
        registry.register(REJECTED, "Publishes that a contract rejected", metrics.rejected.clone());
        registry.register(CONSUMED, "Messages handed to handlers", metrics.consumed.clone());
        registry.register(SETTLED, "Messages settled, whatever became of them", metrics.settled.clone());
        registry.register(ERRORED, "Runs that failed for now", metrics.errored.clone());
        registry.register(LEASE_LOSSES, "Messages lost to another owner", metrics.lease_losses.clone());
        registry.register(BATCH, "Messages that handlers of batches were given", metrics.batch.clone());
        registry.register(FAILED_BATCHES, "Batches that failed as a whole", metrics.failed_batches.clone());
        registry.register(RATE_CUTS, "Claims that a target's rate cut short", metrics.rate_cuts.clone());
        registry.register(LOOKS, "Looks into the table, by what they were made for", metrics.looks.clone());
        registry.register(FOUND, "Messages claimed, by what found them", metrics.found.clone());
        registry.register(RESCUED, "Messages of dead consumers that this process gave back", metrics.rescued.clone());
        registry.register(
            LISTENER_RECONNECTS,
            "Connections of the listener after the first",
            metrics.reconnects.clone(),
        );
        registry.register(LISTENER_UP, "Whether bells arrive (1) or consumers sweep (0)", metrics.listener_up.clone());
        registry.register(
            RUNTIME_BLOCKED,
            "Whether handlers block all threads of the program's runtime (1)",
            metrics.runtime_blocked.clone(),
        );
        registry.register(BUILD, "This version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self { registry, ..metrics }
    }

    /// The text of one scrape: this process's numbers, and what the database says. That is read with a deadline of 2 s and
    /// kept for 3 s; while the database does not answer, `doorbell_database_up` is 0 and its numbers are absent. Never
    /// fails. Cancelling leaves nothing behind.
    pub async fn scrape(&self, broker: &Broker) -> String {
        let mut fleet = self.fleet.lock().await;
        fleet.refresh(&broker.operator()).await;
        // Still locked: what another scrape clears must not be missing from this one.
        self.encode()
    }

    /// This process's numbers alone, with what the database said at the last scrape.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing into a string does not fail");
        text
    }

    /// A name as a label.
    fn name(&self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return known.clone();
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let fresh: Arc<str> = name.into();
        names.insert(fresh.clone());
        fresh
    }

    fn ended(&self, target: Arc<str>, operation: &'static str, took: std::time::Duration, error: Option<&Error>) {
        let error_type = error.map_or("", |error| error.kind().name());
        self.operation.get_or_create(&Operation { target, operation, error_type }).observe(took.as_secs_f64());
    }
}

impl Observer for Metrics {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Published { target, messages, took, error } => {
                let target = self.name(target);
                self.ended(target.clone(), "send", took, error);
                let labels = Target { target };
                // It is told of every target of the call, and one of them has the contract.
                let rejected = error.and_then(Error::contract_of).is_some_and(|of| *of == *labels.target);
                self.rejected.get_or_create(&labels).inc_by(u64::from(rejected));
                self.sent.get_or_create(&labels).inc_by(messages as u64);
            }
            Event::Answered { target, answer, took } => {
                let asked = Asked { target: self.name(target), answer };
                self.requests.get_or_create(&asked).observe(took.as_secs_f64());
            }
            Event::Claimed { target, found, messages, took, error } => {
                let target = self.name(target);
                self.ended(target.clone(), "receive", took, error);
                let look = Look { target, found: found.name() };
                self.looks.get_or_create(&look).inc();
                // There at zero, so that an alert on the first one has something to rise from.
                let labels = Target { target: look.target.clone() };
                let _ = self.errored.get_or_create(&labels);
                let _ = self.lease_losses.get_or_create(&labels);
                self.found.get_or_create(&look).inc_by(messages as u64);
            }
            Event::Started { target, age, .. } => {
                let target = self.name(target);
                self.end_to_end.get_or_create(&Target { target }).observe(age.as_secs_f64());
            }
            Event::Processed { target, record_type, outcome, took } => {
                let (target, record_type) = (self.name(target), self.name(record_type));
                let labels = Target { target: target.clone() };
                self.consumed.get_or_create(&labels).inc();
                if matches!(outcome, Outcome::Retry { .. }) {
                    self.errored.get_or_create(&labels).inc();
                }
                let run = Run { target, record_type, outcome: outcome.name() };
                self.process.get_or_create(&run).observe(took.as_secs_f64());
            }
            Event::Batch { target, messages, failed, .. } => {
                let labels = Target { target: self.name(target) };
                self.batch.get_or_create(&labels).observe(messages as f64);
                self.failed_batches.get_or_create(&labels).inc_by(u64::from(failed));
            }
            Event::RateLimited { target, .. } => {
                self.rate_cuts.get_or_create(&Target { target: self.name(target) }).inc();
            }
            Event::Settled { target, messages, took, error } => {
                let target = self.name(target);
                self.ended(target.clone(), "settle", took, error);
                self.settled.get_or_create(&Target { target }).inc_by(messages as u64);
            }
            Event::LeaseLost { target, messages } => {
                self.lease_losses.get_or_create(&Target { target: self.name(target) }).inc_by(messages as u64);
            }
            Event::Rescued { messages } => {
                self.rescued.inc_by(messages as u64);
            }
            Event::Listening { up, sessions } => {
                self.listener_up.set(i64::from(up));
                if up && sessions > 1 {
                    self.reconnects.inc();
                }
            }
            Event::Runtime { blocked, .. } => {
                self.runtime_blocked.set(i64::from(blocked));
            }
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("rescued", &self.rescued.get()).finish_non_exhaustive()
    }
}
