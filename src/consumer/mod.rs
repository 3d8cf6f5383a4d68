//! The consumer of one target: configuration, start and stop. Its loop is in `run`.

mod run;

mod config;

mod allowance;
mod breaker_report;
mod holding;
mod looking;
mod observed;
mod outbox;
mod parking;
mod places;
mod pulse;
mod reached;
mod running;
mod signals;
mod turn;
mod under_way;
mod workers;

mod claiming;
mod context;
mod effects;
mod gathering;
mod handling;
mod held_batch;
mod in_order;
mod lanes;
mod opening;
mod settle;
mod suspects;
mod sweeping;
mod together;

pub use config::ConsumerConfig;
pub use pulse::Pulse;

use std::{future::Future, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinHandle};
use tokio_postgres::Transaction;

use crate::{
    core::Core,
    error::{Error, ErrorKind, Result},
    handler::{
        Batch, BatchHandler, BatchResult, BatchTxHandler, Handler, HandlerResult, OwnTxHandler, RawHandler,
        RawRequestHandler, Registry, Replier, Repliers, RequestHandler, Several, Steps, StepsHandler, TxHandler,
        TypedBatchHandler, TypedHandler, TypedTxHandler,
    },
    message::{Delivery, check_name},
    statement::Statement,
};

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

    /// Takes and runs messages so; without it, as the default says. Given twice, the last counts.
    pub fn config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
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

    /// Handles one record type with a closure that also gets the transaction which completes the message: what it
    /// writes there and the completion commit together or not at all. Goes before a plain handler of the same type.
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

    /// Handles one record type with a closure that works in a transaction of its own, of any driver: it runs the
    /// [`Statement`] there, which completes the message, and says [`Outcome::Settled`](crate::Outcome::Settled) after the
    /// commit. So effects and completion commit together or not at all, as with [`on_tx`](Self::on_tx).
    ///
    /// Whatever else the closure says is settled as usual; let it roll back first. The statement fails with the SQLSTATE
    /// `MQ001` where the lease was lost: then nothing may commit. When the commit's answer is lost, return the error: where it
    /// happened after all, the message is completed and the retry comes too late. A consumer with such a handler leases
    /// messages, whatever [`hold`](ConsumerConfig::hold) says: nobody else can complete what a transaction holds.
    pub fn on_own_tx<T, F, Fut>(mut self, record_type: impl Into<String>, f: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(T, Delivery, Statement) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        let schema = self.core.settings().schema().clone();
        self.registry.insert(record_type.into(), Arc::new(OwnTxHandler::new(f, schema)));
        self.registry.leases = true;
        self
    }

    /// Handles requests of one record type with a closure that replies: `|ask: Ask, _delivery, replier| async move { … }`, and at
    /// its end `Ok(replier.reply(&price).await?)`. The reply is written by the transaction that completes the request, so that
    /// there is one, from who held its lease; [`Producer::request`](crate::Producer::request) waits for it. Whatever else the
    /// closure says is settled as usual; whoever waits is told of failures, too. Such a consumer leases, as with
    /// [`on_own_tx`](Self::on_own_tx).
    pub fn on_request<T, F, Fut>(mut self, record_type: impl Into<String>, f: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(T, Delivery, Replier) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        let handler = RequestHandler::new(f, self.repliers());
        self.registry.insert(record_type.into(), Arc::new(handler));
        self.registry.leases = true;
        self
    }

    /// Handles messages of one record type several at a time, with a closure over their decoded payloads:
    /// `|orders: Vec<(Order, Delivery)>| async move { … Ok(BatchOutcome::done()) }`, which says of each message what becomes of it, and
    /// [replies](crate::BatchOutcome::reply) to requests. A payload that does not decode as `T` fails its message alone.
    ///
    /// An error, a panic or a time-out of a batch of several costs no retry: its messages are handled one by one at once, so that the bad
    /// one pays alone. [`handler_timeout`](ConsumerConfig::handler_timeout) is that of the batch, and `concurrency` counts batches: up to
    /// `concurrency` times [`Batch::of`] messages are this consumer's at a time, so other record types are better off with a consumer of their
    /// own. Messages of one ordering key are in their order; where one does not end done, those after it are given back and
    /// handled again after it, whatever was said of them. Suspects come alone. Such a consumer leases, as with
    /// [`on_own_tx`](Self::on_own_tx). Goes before all other handlers of the record type.
    pub fn on_batch<T, F, Fut>(mut self, record_type: impl Into<String>, batch: Batch, f: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(Vec<(T, Delivery)>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = BatchResult> + Send + 'static,
    {
        let handler = Several::Plain(Arc::new(TypedBatchHandler::new(f)));
        self.registry.insert_batch(Some(record_type.into()), batch, handler);
        self
    }

    /// As [`on_batch`](Self::on_batch), in the transaction that completes the messages: its effects, and the completion of all of
    /// them, commit together or not at all. The closure returns a boxed future:
    /// `|orders: Vec<(Order, Delivery)>, tx| Box::pin(async move { … })`.
    ///
    /// Where it says something else than done of one message, all its effects are rolled back, that message is settled as it says, and the
    /// others are handled again without it; with an ordering key, one by one.
    pub fn on_batch_tx<T, F>(mut self, record_type: impl Into<String>, batch: Batch, f: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: for<'a> Fn(Vec<(T, Delivery)>, &'a Transaction<'a>) -> BoxFuture<'a, BatchResult> + Send + Sync + 'static,
    {
        let handler = Several::Tx(Arc::new(TypedBatchHandler::new(f)));
        self.registry.insert_batch(Some(record_type.into()), batch, handler);
        self
    }

    /// Handles one record type with a [`BatchHandler`].
    pub fn batch_handler(mut self, record_type: impl Into<String>, batch: Batch, handler: impl BatchHandler) -> Self {
        self.registry.insert_batch(Some(record_type.into()), batch, Several::Plain(Arc::new(handler)));
        self
    }

    /// Handles one record type with a [`BatchTxHandler`].
    pub fn batch_tx_handler(
        mut self,
        record_type: impl Into<String>,
        batch: Batch,
        handler: impl BatchTxHandler,
    ) -> Self {
        self.registry.insert_batch(Some(record_type.into()), batch, Several::Tx(Arc::new(handler)));
        self
    }

    /// Handles every record type that has no handler of its own with a [`BatchHandler`]; a batch may be of several types.
    pub fn fallback_batch_handler(mut self, batch: Batch, handler: impl BatchHandler) -> Self {
        self.registry.insert_batch(None, batch, Several::Plain(Arc::new(handler)));
        self
    }

    /// Handles one record type with a closure of several steps, whose results are saved: `|order: Order, delivery, steps| async move
    /// { … }`. `steps.run("charge", async || …)` does a step once: a later attempt, here or in another process, is given what it
    /// returned. Its effect is to be named by [`Delivery::effect_key`]; see [`Steps::run`]. Such a consumer leases, as with
    /// [`on_own_tx`](Self::on_own_tx).
    pub fn on_steps<T, F, Fut>(mut self, record_type: impl Into<String>, f: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(T, Delivery, Steps) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        let (store, payload_bytes_max) = (self.core.store().clone(), self.core.config().payload_bytes_max);
        self.registry.insert(record_type.into(), Arc::new(StepsHandler::new(f, store, payload_bytes_max)));
        self.registry.leases = true;
        self
    }

    /// Handles one record type with a [`TxHandler`].
    pub fn tx_handler(mut self, record_type: impl Into<String>, handler: impl TxHandler) -> Self {
        self.registry.insert_tx(record_type.into(), Arc::new(handler));
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

    /// Handles every record type that has no handler of its own with a closure over the delivery and what replies, as with
    /// [`on_request`](Self::on_request): who [waits for a reply](Delivery::wants_reply) gets it, and what is no request is
    /// handled, too. Such a consumer leases.
    pub fn fallback_request<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn(Delivery, Replier) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        self.registry.set_fallback(Arc::new(RawRequestHandler { f, repliers: self.repliers() }));
        self.registry.leases = true;
        self
    }

    fn repliers(&self) -> Repliers {
        let (store, schema) = (self.core.store().clone(), self.core.settings().schema().clone());
        Repliers { store, schema, payload_bytes_max: self.core.config().payload_bytes_max }
    }

    /// Starts consuming in the background. Returns once the process is registered and LISTEN is in force (or the
    /// listener is known to be down): whatever is published after that rings.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for an unusable configuration or no handler at all; the database's when it cannot
    /// be reached now, or [`Forbidden`](ErrorKind::Forbidden) by it. Later outages do not end a consumer.
    pub async fn start(mut self) -> Result<Consumer> {
        self.config.check()?;
        check_name("target", &self.target)?;
        if self.registry.is_empty() {
            return Err(Error::config(format!(
                "the consumer of {:?} has no handler; add one with on, handler or fallback",
                self.target
            )));
        }
        self.registry.batches().sizes.iter().try_for_each(Batch::check)?;
        self.registry.unknown = self.config.unknown_type;
        self.registry.reply_bytes_max = self.core.config().payload_bytes_max;
        if self.registry.leases {
            self.config.hold = None;
        }
        let process = self.core.process().await?;
        let (stop, stopping) = watch::channel(None);
        let drain_timeout = self.config.drain_timeout;
        let store = self.core.store().clone();
        let consumer = run::Loop::join(store, process, self.target, self.config, self.registry, stopping).await?;
        let pulse = consumer.pulse().clone();
        let ends = pulse.clone().ends_when_dropped();
        let task = tokio::spawn(async move {
            // Moved in here, so that a panic of ours is noticed, too.
            let _ends = ends;
            consumer.run().await
        });
        Ok(Consumer { stop, drain_timeout, pulse, task })
    }

    /// Starts, runs until `stop` completes (see [`shutdown_signal`](crate::shutdown_signal)), then drains.
    ///
    /// # Errors
    /// Those of [`start`](Self::start) and [`shutdown`](Consumer::shutdown).
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<()> {
        let consumer = self.start().await?;
        tokio::select! {
            () = stop => {}
            () = consumer.ended() => {}
        }
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
    task: JoinHandle<Result<()>>,
}

impl Consumer {
    /// Tells whether it still works, for liveness checks; goes on telling while and after it is shut down.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Waits until the consumer has ended by itself: because its role may not consume any more, as
    /// [`shutdown`](Self::shutdown) says then, or by a panic of ours. Cancelling it leaves nothing behind.
    pub async fn ended(&self) {
        self.stop.closed().await;
    }

    /// Stops claiming, gives unstarted messages back at once, waits for running handlers up to
    /// [`ConsumerConfig::drain_timeout`], then drops them and gives their messages back too.
    ///
    /// # Errors
    /// [`Forbidden`](ErrorKind::Forbidden) when it had ended because its role may not consume any more;
    /// [`Closed`](ErrorKind::Closed) when its task had ended by a panic of ours.
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
            .map_err(|error| Error::new(ErrorKind::Closed, "the consumer ended unexpectedly").with_source(error))?
    }
}
