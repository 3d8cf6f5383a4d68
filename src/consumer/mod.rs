//! The consumer of one target: configuration, start and stop. Its loop is in `run`.

mod allowance;
mod run;

mod claiming;
mod drain;
mod effects;
mod handling;
mod in_transaction;
mod marks;
mod parking;
mod prefetch;
mod pulse;
mod runs;
mod settle;
mod suspects;
mod sweeping;

pub use pulse::Pulse;

use std::{future::Future, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinHandle};
use tokio_postgres::Transaction;

use crate::{
    core::Core,
    error::{Error, ErrorKind, Result},
    handler::{Handler, HandlerResult, RawHandler, Registry, TxHandler, TypedHandler, TypedTxHandler, UnknownType},
    message::{Delivery, check_name},
};

/// How a consumer takes and runs messages.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Handlers that run at the same time. Default 8; 0 is refused.
    pub concurrency: usize,
    /// Messages claimed ahead of free handlers, so that one that finishes starts the next without a round trip. They
    /// cannot be handled by another process meanwhile: 0 is right for handlers that take seconds. `None` (the default):
    /// 20 ms of work by the average handler, at least as many as `concurrency` and at most 1,000; 0 when handlers take 50 ms
    /// and more on average. What was claimed ahead is given back when they become slow.
    pub prefetch: Option<usize>,
    /// How often to look without having been rung, spread by a tenth. Finds what no notification announced. Default 5 s;
    /// `None` never sweeps, for tests.
    pub sweep: Option<Duration>,
    /// A handler that runs longer is dropped and its message failed for now. Default 60 s; `None`: no limit.
    pub handler_timeout: Option<Duration>,
    /// How long shutdown waits for running handlers before it drops them and gives their messages back. Default 30 s.
    pub drain_timeout: Duration,
    /// Only these record types are claimed; others wait for another consumer. `None` (the default): all.
    pub record_types: Option<Vec<String>>,
    /// What happens to a record type without a handler. Default: failed with a reason.
    pub unknown_type: UnknownType,
    /// How many messages one transaction of transactional handlers may take, one handler after the other; when one of them
    /// does not end with [`Outcome::Done`](crate::Outcome::Done), each is run again in a transaction of its own. Default 1.
    pub tx_batch: usize,
    /// In-transaction mode: messages with transactional handlers are not leased but stay locked by the transaction that
    /// handles and completes them, up to `tx_batch` at a time, one handler after the other. About twice as fast, and a process
    /// that dies gives them back at once. The value is the longest such a transaction may last: what has not begun by then goes
    /// back, and a handler that is still running is dropped and run again with a lease. A batch in which a handler does not end
    /// with [`Outcome::Done`](crate::Outcome::Done) is rolled back, and its messages are taken with leases. Targets with
    /// `max_in_flight`, an open breaker, or a consumer that died in this mode within the last ten minutes are consumed with
    /// leases, and so does a process in its first three seconds. Right for handlers of milliseconds; the transaction holds back
    /// vacuum. Default `None`: leases.
    pub in_transaction: Option<Duration>,
    /// Most messages this consumer takes in its life; when they are handled it idles until it is shut down. One that fails
    /// and comes back counts again. Default `None`: no limit.
    pub messages_max: Option<usize>,
    /// Bounds the stored payload bytes of one claim. Default 16 MiB; a larger single message is still claimed.
    pub claim_bytes_max: usize,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            concurrency: 8,
            prefetch: None,
            sweep: Some(Duration::from_secs(5)),
            handler_timeout: Some(Duration::from_secs(60)),
            drain_timeout: Duration::from_secs(30),
            record_types: None,
            unknown_type: UnknownType::Reject,
            tx_batch: 1,
            in_transaction: None,
            messages_max: None,
            claim_bytes_max: 16 << 20,
        }
    }
}

impl ConsumerConfig {
    fn check(&self) -> Result<()> {
        if self.concurrency == 0 {
            return Err(Error::config("concurrency is 0; at least one handler must be able to run"));
        }
        if self.tx_batch == 0 {
            return Err(Error::config("tx_batch is 0; a transaction takes at least one message"));
        }
        if self.in_transaction.is_some_and(|cap| !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&cap))
        {
            return Err(Error::config("in_transaction is not between 10 ms and 60 s; 1 s is usual"));
        }
        if self.sweep.is_some_and(|sweep| sweep < Duration::from_millis(10)) {
            return Err(Error::config("sweep is below 10 ms; give None to switch sweeping off"));
        }
        if self.record_types.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::config("record_types is an empty list; give None to accept all"));
        }
        self.record_types.iter().flatten().try_for_each(|name| check_name("record type", name))
    }
}

/// A consumer about to start: set handlers, then [`start`](Self::start) or [`run_until`](Self::run_until).
#[derive(Debug)]
#[must_use = "a consumer does nothing until it is started"]
pub struct ConsumerBuilder {
    core: Arc<Core>,
    target: String,
    config: ConsumerConfig,
    registry: Registry,
}

impl ConsumerBuilder {
    pub(crate) fn new(core: Arc<Core>, target: String) -> Self {
        Self { core, target, config: ConsumerConfig::default(), registry: Registry::default() }
    }

    /// Replaces the whole configuration.
    pub fn config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets [`ConsumerConfig::concurrency`].
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.config.concurrency = concurrency;
        self
    }

    /// Sets [`ConsumerConfig::sweep`].
    pub fn sweep(mut self, sweep: Option<Duration>) -> Self {
        self.config.sweep = sweep;
        self
    }

    /// Sets [`ConsumerConfig::handler_timeout`].
    pub fn handler_timeout(mut self, limit: Option<Duration>) -> Self {
        self.config.handler_timeout = limit;
        self
    }

    /// Handles one record type with a closure over the decoded payload. A payload that does not decode as `T` fails its
    /// message for good, with the decoder's words.
    pub fn on<T, F, Fut>(mut self, record_type: impl Into<String>, f: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(T, Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        self.registry.insert(record_type.into(), Arc::new(TypedHandler::new(f)));
        self
    }

    /// Handles one record type with a closure that also gets the transaction which completes the message: what it writes
    /// there and the completion commit together or not at all. Goes before a plain handler of the same type.
    ///
    /// The closure returns a boxed future: `|order: Order, _delivery, tx| Box::pin(async move { … })`.
    pub fn on_tx<T, F>(mut self, record_type: impl Into<String>, f: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: for<'a> Fn(T, Delivery, &'a Transaction<'a>) -> BoxFuture<'a, HandlerResult> + Send + Sync + 'static,
    {
        self.registry.insert_tx(record_type.into(), Arc::new(TypedTxHandler::new(f)));
        self
    }

    /// Handles one record type with a [`TxHandler`].
    pub fn tx_handler(mut self, record_type: impl Into<String>, handler: impl TxHandler) -> Self {
        self.registry.insert_tx(record_type.into(), Arc::new(handler));
        self
    }

    /// Sets [`ConsumerConfig::tx_batch`].
    pub fn tx_batch(mut self, messages: usize) -> Self {
        self.config.tx_batch = messages;
        self
    }

    /// Sets [`ConsumerConfig::in_transaction`] to a second: right for transactional handlers that take milliseconds.
    pub fn in_transaction(mut self) -> Self {
        self.config.in_transaction = Some(Duration::from_secs(1));
        self
    }

    /// Handles one record type with a [`Handler`].
    pub fn handler(mut self, record_type: impl Into<String>, handler: impl Handler) -> Self {
        self.registry.insert(record_type.into(), Arc::new(handler));
        self
    }

    /// Handles every record type that has no handler of its own with a closure over the delivery.
    pub fn fallback<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn(Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        self.registry.set_fallback(Arc::new(RawHandler(f)));
        self
    }

    /// Handles every record type that has no handler of its own with a [`Handler`].
    pub fn fallback_handler(mut self, handler: impl Handler) -> Self {
        self.registry.set_fallback(Arc::new(handler));
        self
    }

    /// Starts consuming in the background. Returns once the process is registered and LISTEN is in force (or the listener
    /// is known to be down): whatever is published after that rings.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for an unusable configuration or no handler at all; the database's when it cannot be
    /// reached now. Later outages do not end a consumer.
    pub async fn start(mut self) -> Result<Consumer> {
        self.config.check()?;
        check_name("target", &self.target)?;
        if self.registry.is_empty() {
            return Err(Error::config(format!(
                "the consumer of {:?} has no handler; add one with on, handler or fallback",
                self.target
            )));
        }
        self.registry.unknown = self.config.unknown_type;
        if self.registry.tx_types(None).is_empty() {
            self.config.in_transaction = None;
        }
        let process = self.core.process().await?;
        let (stop, stopping) = watch::channel(None);
        let drain_timeout = self.config.drain_timeout;
        let consumer = run::Loop::join(self.core, process, self.target, self.config, self.registry, stopping).await?;
        let pulse = consumer.context.pulse.clone();
        let ends = pulse.clone().ends_when_dropped();
        let task = tokio::spawn(async move {
            // Moved in here, so that a panic of ours is noticed, too.
            let _ends = ends;
            consumer.run().await;
        });
        Ok(Consumer { stop, drain_timeout, pulse, task })
    }

    /// Starts, runs until `stop` completes (see [`shutdown_signal`](crate::shutdown_signal)), then drains.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<()> {
        let consumer = self.start().await?;
        stop.await;
        consumer.shutdown().await
    }
}

/// A running consumer. Dropping it asks it to stop without waiting: it drains in the background.
#[derive(Debug)]
pub struct Consumer {
    /// Set when it is to stop: how long running handlers may take.
    stop: watch::Sender<Option<Duration>>,
    drain_timeout: Duration,
    pulse: Pulse,
    task: JoinHandle<()>,
}

impl Consumer {
    /// Tells whether it still works, for liveness checks; goes on telling while and after it is shut down.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Stops claiming, gives unstarted messages back at once, waits for running handlers up to
    /// [`ConsumerConfig::drain_timeout`], then drops them and gives their messages back too.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) when the consumer's task had ended by a panic of ours.
    pub async fn shutdown(self) -> Result<()> {
        let drain_timeout = self.drain_timeout;
        self.shutdown_within(drain_timeout).await
    }

    /// [`shutdown`](Self::shutdown) with a patience of its own: for who knows that what still runs will not finish.
    ///
    /// # Errors
    /// As [`shutdown`](Self::shutdown).
    pub async fn shutdown_within(self, drain_timeout: Duration) -> Result<()> {
        self.stop.send_replace(Some(drain_timeout));
        self.task
            .await
            .map_err(|error| Error::new(ErrorKind::Closed, "the consumer ended unexpectedly").with_source(error))
    }
}
