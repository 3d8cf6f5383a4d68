//! Handlers: async closures or types with a `handle`, found by record type; and running one of them to a verdict.

mod batch;
mod request;
mod steps;

use std::{collections::HashMap, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt, future::BoxFuture};
use serde::de::DeserializeOwned;
use tokio_postgres::Transaction;

use crate::{message::Delivery, outcome::Outcome, schema::Schema, statement::Statement};

pub use batch::{Batch, BatchHandler, BatchOutcome, BatchResult, BatchTxHandler};
pub(crate) use batch::{Batches, TypedBatchHandler};
pub use request::Replier;
pub(crate) use request::{RawRequestHandler, Repliers, RequestHandler, check_reply};
pub use steps::Steps;
pub(crate) use steps::StepsHandler;

/// What a handler may fail with: any error. It becomes the message's `error_message`, causes included.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// What a handler returns. `Err` means: failed for now, retry by policy.
pub type HandlerResult = Result<Outcome, HandlerError>;

/// Handles messages. Object-safe; for a closure with a typed payload see
/// [`ConsumerBuilder::on`](crate::ConsumerBuilder::on).
///
/// The future is dropped when the handler's timeout passes, when the lease is lost, or when draining takes too long at
/// shutdown: whatever it awaits then is cancelled.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles one message. A panic is a failure with the panic's message.
    async fn handle(&self, delivery: Delivery) -> HandlerResult;
}

/// Handles messages inside a database transaction that also completes them: effects written through `tx` and the
/// completion commit together or not at all. With effects in this database only, that is exactly-once.
///
/// Any outcome but [`Outcome::Done`] rolls the effects back before the message is settled. While handlers are short, one
/// transaction is given to several of them, one after the other, and only the effects of that handler are rolled back;
/// see [`ConsumerConfig::hold`](crate::ConsumerConfig::hold). Keep it short: the transaction holds back vacuum while it
/// runs. Wait for the answer to whatever is sent through it. Object-safe; for a closure see
/// [`ConsumerBuilder::on_tx`](crate::ConsumerBuilder::on_tx).
#[async_trait]
pub trait TxHandler: Send + Sync + 'static {
    /// Handles one message. Never commit or roll back `tx` with SQL of your own.
    async fn handle(&self, delivery: Delivery, tx: &Transaction<'_>) -> HandlerResult;
}

/// What happens to a message whose record type has no handler (and no fallback is set).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownType {
    /// Failed for good with a reason that names the type (the default): visible, never lost, redriven once a handler exists.
    #[default]
    Reject,
    /// Failed for now: retried by policy, for the time of a rolling deployment.
    Retry,
}

/// The handlers of one consumer.
#[derive(Default)]
pub(crate) struct Registry {
    by_type: HashMap<String, Arc<dyn Handler>>,
    tx_by_type: HashMap<String, Arc<dyn TxHandler>>,
    fallback: Option<Arc<dyn Handler>>,
    batches: Batches,
    /// As many as there are sizes of batches.
    several: Vec<Several>,
    pub(crate) unknown: UnknownType,
    /// Some handlers need leases: they complete their messages in transactions of their own, or take several.
    pub(crate) leases: bool,
    /// The most that a reply may have.
    pub(crate) reply_bytes_max: usize,
}

/// Who handles several messages at a time.
#[derive(Clone)]
pub(crate) enum Several {
    Plain(Arc<dyn BatchHandler>),
    Tx(Arc<dyn BatchTxHandler>),
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("types", &self.by_type.keys())
            .field("fallback", &self.fallback.is_some())
            .finish()
    }
}

impl Registry {
    pub(crate) fn insert(&mut self, record_type: String, handler: Arc<dyn Handler>) {
        self.batches.one_by_one.insert(record_type.clone());
        self.by_type.insert(record_type, handler);
    }

    pub(crate) fn insert_tx(&mut self, record_type: String, handler: Arc<dyn TxHandler>) {
        self.batches.one_by_one.insert(record_type.clone());
        self.tx_by_type.insert(record_type, handler);
    }

    /// `record_type` is `None`: all that have no handler of their own.
    pub(crate) fn insert_batch(&mut self, record_type: Option<String>, batch: Batch, handler: Several) {
        let number = self.several.len();
        self.several.push(handler);
        self.batches.sizes.push(batch);
        match record_type {
            Some(record_type) => drop(self.batches.by_type.insert(record_type, number)),
            None => self.batches.others = Some(number),
        }
        self.leases = true;
    }

    pub(crate) fn batches(&self) -> &Batches {
        &self.batches
    }

    /// Who handles messages of a record type in batches, which goes before a handler of single ones.
    pub(crate) fn several(&self, record_type: &str) -> Option<&Several> {
        self.several.get(self.batches.of(record_type)?)
    }

    /// The transactional handler of a record type, which goes before a plain one.
    pub(crate) fn tx(&self, record_type: &str) -> Option<&Arc<dyn TxHandler>> {
        self.tx_by_type.get(record_type)
    }

    /// A record type as it may be used for a label: bounded by the handlers there are, whatever is published.
    pub(crate) fn label(&self, record_type: &str) -> &str {
        let plain = self.by_type.get_key_value(record_type).map(|(name, _)| name);
        plain
            .or_else(|| self.tx_by_type.get_key_value(record_type).map(|(name, _)| name))
            .or_else(|| self.batches.by_type.get_key_value(record_type).map(|(name, _)| name))
            .map_or("other", String::as_str)
    }

    /// Whether no handler is transactional.
    pub(crate) fn is_plain(&self) -> bool {
        self.tx_by_type.is_empty()
    }

    pub(crate) fn set_fallback(&mut self, handler: Arc<dyn Handler>) {
        self.fallback = Some(handler);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_type.is_empty() && self.tx_by_type.is_empty() && self.fallback.is_none() && self.several.is_empty()
    }

    /// Runs the handler of a delivery to its outcome; never fails, never panics.
    pub(crate) async fn run(&self, delivery: Delivery, limit: Option<Duration>) -> Outcome {
        if let Some(refusal) = delivery.refusal() {
            return refusal;
        }
        let Some(handler) = self.by_type.get(&delivery.record_type).or(self.fallback.as_ref()) else {
            let reason = format!("no handler for record type {:?}", delivery.record_type);
            return match self.unknown {
                UnknownType::Reject => Outcome::reject(reason),
                UnknownType::Retry => Outcome::retry(reason),
            };
        };
        caught(async { handler.handle(delivery).await }, limit).await
    }
}

/// Runs a handler to an outcome: an error, a panic and a timeout are failures.
pub(crate) async fn caught(handling: impl Future<Output = HandlerResult>, limit: Option<Duration>) -> Outcome {
    reasoned(handling, limit).await.unwrap_or_else(Outcome::retry)
}

/// Runs a handler to what it says; an error, a panic and a timeout are reasons.
pub(crate) async fn reasoned<T>(
    handling: impl Future<Output = Result<T, HandlerError>>,
    limit: Option<Duration>,
) -> Result<T, String> {
    let handling = AssertUnwindSafe(handling).catch_unwind();
    let result = match limit {
        Some(limit) => tokio::time::timeout(limit, handling).await.map_err(|_| timeout_reason(limit))?,
        None => handling.await,
    };
    match result {
        Ok(said) => said.map_err(|error| chain(&*error)),
        Err(panic) => Err(format!("panicked: {}", panic_message(&*panic))),
    }
}

pub(crate) fn timeout_reason(limit: Duration) -> String {
    format!("timed out after {:.1} s", limit.as_secs_f64())
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some libraries print the cause themselves and return it as source, too.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

/// A closure over a typed payload as a [`Handler`].
pub(crate) struct TypedHandler<T, F> {
    f: F,
    payload: std::marker::PhantomData<fn(T)>,
}

impl<T, F> TypedHandler<T, F> {
    pub(crate) fn new(f: F) -> Self {
        Self { f, payload: std::marker::PhantomData }
    }
}

#[async_trait]
impl<T, F, Fut> Handler for TypedHandler<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(T, Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send,
{
    /// A payload that is not a `T` fails this message alone, with the decoder's words.
    async fn handle(&self, delivery: Delivery) -> HandlerResult {
        match delivery.json::<T>() {
            Ok(payload) => (self.f)(payload, delivery).await,
            Err(error) => Ok(unreadable::<T>(&error)),
        }
    }
}

fn unreadable<T>(error: &serde_json::Error) -> Outcome {
    Outcome::reject(format!("the payload cannot be read as {}: {error}", std::any::type_name::<T>()))
}

/// A closure over a typed payload and what completes its message as a [`Handler`].
pub(crate) struct OwnTxHandler<T, F> {
    f: F,
    schema: Schema,
    payload: std::marker::PhantomData<fn(T)>,
}

impl<T, F> OwnTxHandler<T, F> {
    pub(crate) fn new(f: F, schema: Schema) -> Self {
        Self { f, schema, payload: std::marker::PhantomData }
    }
}

#[async_trait]
impl<T, F, Fut> Handler for OwnTxHandler<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(T, Delivery, Statement) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send,
{
    async fn handle(&self, delivery: Delivery) -> HandlerResult {
        let completion = delivery.completion().in_schema(&self.schema);
        match delivery.json::<T>() {
            Ok(payload) => (self.f)(payload, delivery, completion).await,
            Err(error) => Ok(unreadable::<T>(&error)),
        }
    }
}

/// A closure over a typed payload and the transaction as a [`TxHandler`].
pub(crate) struct TypedTxHandler<T, F> {
    f: F,
    payload: std::marker::PhantomData<fn(T)>,
}

impl<T, F> TypedTxHandler<T, F> {
    pub(crate) fn new(f: F) -> Self {
        Self { f, payload: std::marker::PhantomData }
    }
}

#[async_trait]
impl<T, F> TxHandler for TypedTxHandler<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: for<'a> Fn(T, Delivery, &'a Transaction<'a>) -> BoxFuture<'a, HandlerResult> + Send + Sync + 'static,
{
    async fn handle(&self, delivery: Delivery, tx: &Transaction<'_>) -> HandlerResult {
        match delivery.json::<T>() {
            Ok(payload) => (self.f)(payload, delivery, tx).await,
            Err(error) => Ok(unreadable::<T>(&error)),
        }
    }
}

/// A closure over the delivery as a [`Handler`].
pub(crate) struct RawHandler<F>(pub(crate) F);

#[async_trait]
impl<F, Fut> Handler for RawHandler<F>
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send,
{
    async fn handle(&self, delivery: Delivery) -> HandlerResult {
        (self.0)(delivery).await
    }
}
