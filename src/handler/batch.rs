//! Handlers of several messages at a time.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use tokio_postgres::Transaction;

use super::{HandlerError, request::written, unreadable};
use crate::{
    error::{Error, Result},
    message::{Delivery, MessageId},
    outcome::Outcome,
};

/// What one claim may bring, and a handler can be trusted with.
const MESSAGES_MAX: usize = 10_000;

/// Leased messages wait no longer than this for others.
const LINGER_MAX: Duration = Duration::from_secs(60);

/// How many messages a batch handler gets at most, and how long they wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pub(crate) max: usize,
    pub(crate) linger: Duration,
}

impl Batch {
    /// At most so many, from 1 to 10,000. Without [`linger`](Self::linger) a batch is what waits when a handler is free: a lone
    /// message is handled at once, and batches grow with the load.
    pub fn of(max: usize) -> Self {
        Self { max, linger: Duration::ZERO }
    }

    /// While it is not full, a batch waits for more, but none of its messages waits longer than this, from when this consumer got it
    /// until a handler is free. At most a minute, default 0. They are leased meanwhile: nobody else handles them.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !(1..=MESSAGES_MAX).contains(&self.max) {
            return Err(Error::config(format!("a batch of {} messages; give 1 to {MESSAGES_MAX}", self.max)));
        }
        if self.linger > LINGER_MAX {
            return Err(Error::config(format!(
                "a batch lingers for {:.0} s; give 60 s at most: its messages are leased meanwhile",
                self.linger.as_secs_f64()
            )));
        }
        Ok(())
    }
}

/// What becomes of each message of a batch. Default: all are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOutcome {
    all: Outcome,
    but: HashMap<MessageId, Outcome>,
    /// Of those that are done, as JSON.
    replies: HashMap<MessageId, Box<str>>,
}

impl Default for BatchOutcome {
    fn default() -> Self {
        Self::done()
    }
}

impl BatchOutcome {
    /// All are done, except those of which [`but`](Self::but) or [`set`](Self::set) says otherwise.
    pub fn done() -> Self {
        Self::all(Outcome::Done)
    }

    /// The same for all, except where [`but`](Self::but) or [`set`](Self::set) says otherwise.
    pub fn all(outcome: Outcome) -> Self {
        Self { all: outcome, but: HashMap::new(), replies: HashMap::new() }
    }

    /// Something else for the message with this id. An id that is not in the batch fails the batch.
    pub fn but(mut self, id: MessageId, outcome: Outcome) -> Self {
        self.set(id, outcome);
        self
    }

    /// As [`but`](Self::but), in a loop. Said twice of one message, the last counts.
    pub fn set(&mut self, id: MessageId, outcome: Outcome) {
        self.replies.remove(&id);
        self.but.insert(id, outcome);
    }

    /// The [request](crate::Producer::request) with this id is done, and this is the reply; of a message that is none it is
    /// nobody's. It is written by the transaction that completes the message: with [`on_batch_tx`](crate::ConsumerBuilder::on_batch_tx)
    /// that of the batch, else one of its own, which those of a batch share. A reply that is larger than a payload may be rejects
    /// its request, and whoever waits is told so.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for what does not serialize to JSON; nothing was said then.
    pub fn reply<R: Serialize + ?Sized>(&mut self, id: MessageId, reply: &R) -> Result<()> {
        let reply = written(reply)?;
        self.set(id, Outcome::Done);
        self.replies.insert(id, reply.get().into());
        Ok(())
    }

    /// Of whom it says something, and is not one of these.
    pub(crate) fn stranger(&self, ids: &[MessageId]) -> Option<MessageId> {
        let ids: HashSet<&MessageId> = ids.iter().collect();
        self.but.keys().find(|id| !ids.contains(id)).copied()
    }

    pub(crate) fn of(&self, id: MessageId) -> &Outcome {
        self.but.get(&id).unwrap_or(&self.all)
    }

    pub(crate) fn take_reply(&mut self, id: MessageId) -> Option<Box<str>> {
        self.replies.remove(&id)
    }
}

/// What a batch handler returns. `Err`: the batch has failed as a whole.
pub type BatchResult = std::result::Result<BatchOutcome, HandlerError>;

/// Handles several messages at a time; see [`ConsumerBuilder::on_batch`](crate::ConsumerBuilder::on_batch). Object-safe.
#[async_trait]
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles a batch, which is never empty. Those with the same ordering key are in their order. An error, a panic or a time-out
    /// of a batch of several costs none of its messages a retry: each is handled by itself at once, as a batch of one, and settled by how
    /// that ends.
    async fn handle(&self, deliveries: Vec<Delivery>) -> BatchResult;
}

/// Handles several messages inside the transaction that also completes them; see
/// [`ConsumerBuilder::on_batch_tx`](crate::ConsumerBuilder::on_batch_tx). Object-safe.
#[async_trait]
pub trait BatchTxHandler: Send + Sync + 'static {
    /// Handles a batch, as [`BatchHandler::handle`] does. Never commit or roll back `tx` with SQL of your own.
    async fn handle(&self, deliveries: Vec<Delivery>, tx: &Transaction<'_>) -> BatchResult;
}

/// Which record types are handled in which batches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batches {
    pub(crate) sizes: Vec<Batch>,
    pub(crate) by_type: HashMap<String, usize>,
    /// For record types without a handler of their own.
    pub(crate) others: Option<usize>,
    /// Record types whose messages are handled one by one, where others are not.
    pub(crate) one_by_one: HashSet<String>,
}

impl Batches {
    pub(crate) fn are_none(&self) -> bool {
        self.sizes.is_empty()
    }

    /// In which a message of this record type is handled. `None`: by itself.
    pub(crate) fn of(&self, record_type: &str) -> Option<usize> {
        let others = || self.others.filter(|_| !self.one_by_one.contains(record_type));
        self.by_type.get(record_type).copied().or_else(others)
    }

    /// The most messages of one batch; 0: there are none.
    pub(crate) fn largest(&self) -> usize {
        self.sizes.iter().map(|batch| batch.max).max().unwrap_or(0)
    }
}

/// A closure over typed payloads as a handler of batches.
pub(crate) struct TypedBatchHandler<T, F> {
    f: F,
    payload: std::marker::PhantomData<fn(T)>,
}

impl<T, F> TypedBatchHandler<T, F> {
    pub(crate) fn new(f: F) -> Self {
        Self { f, payload: std::marker::PhantomData }
    }
}

#[async_trait]
impl<T, F, Fut> BatchHandler for TypedBatchHandler<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(Vec<(T, Delivery)>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = BatchResult> + Send,
{
    async fn handle(&self, deliveries: Vec<Delivery>) -> BatchResult {
        let (items, refused) = decoded(deliveries);
        Ok(with(if items.is_empty() { BatchOutcome::done() } else { (self.f)(items).await? }, refused))
    }
}

#[async_trait]
impl<T, F> BatchTxHandler for TypedBatchHandler<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: for<'a> Fn(Vec<(T, Delivery)>, &'a Transaction<'a>) -> BoxFuture<'a, BatchResult> + Send + Sync + 'static,
{
    async fn handle(&self, deliveries: Vec<Delivery>, tx: &Transaction<'_>) -> BatchResult {
        let (items, refused) = decoded(deliveries);
        Ok(with(if items.is_empty() { BatchOutcome::done() } else { (self.f)(items, tx).await? }, refused))
    }
}

type Refused = Vec<(MessageId, Outcome)>;

/// Payloads that are not a `T` fail their messages alone; those that come after them of their keys are left out.
fn decoded<T: DeserializeOwned>(deliveries: Vec<Delivery>) -> (Vec<(T, Delivery)>, Refused) {
    let (mut items, mut refused, mut keys) = (Vec::with_capacity(deliveries.len()), Vec::new(), HashSet::new());
    for delivery in deliveries {
        if delivery.ordering_key.as_ref().is_some_and(|key| keys.contains(key)) {
            continue;
        }
        match delivery.json::<T>() {
            Ok(payload) => items.push((payload, delivery)),
            Err(error) => {
                refused.push((delivery.id, unreadable::<T>(&error)));
                keys.extend(delivery.ordering_key);
            }
        }
    }
    (items, refused)
}

fn with(mut outcome: BatchOutcome, refused: Refused) -> BatchOutcome {
    refused.into_iter().for_each(|(id, refusal)| outcome.set(id, refusal));
    outcome
}
