//! Handlers of requests, which reply.

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};

use super::{BatchHandler, BatchResult, Handler, HandlerResult, chain, unreadable};
use crate::{
    error::{Error, Result},
    message::{Delivery, check_payload},
    outcome::Outcome,
    schema::Schema,
    statement::Statement,
    store::Store,
};

/// What completes a request with its reply.
#[derive(Clone, Debug)]
pub struct Replier {
    repliers: Repliers,
    delivery: Delivery,
}

/// What completes the requests of a batch with their replies; see
/// [`fallback_batch_request`](crate::ConsumerBuilder::fallback_batch_request).
#[derive(Clone, Debug)]
pub struct Repliers {
    pub(crate) store: Store,
    pub(crate) schema: Schema,
    pub(crate) payload_bytes_max: usize,
}

impl Repliers {
    /// What replies to this one, of the batch that this was given with.
    pub fn of(&self, delivery: &Delivery) -> Replier {
        Replier { repliers: self.clone(), delivery: delivery.clone() }
    }
}

impl Replier {
    /// Completes the request with `reply`, for who asked, in a transaction of its own; return what this returns. Of a message
    /// that is no request the reply is nobody's. A reply that is too large, or no JSON, rejects the request, and whoever
    /// waits for it is told so.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost): another attempt has the request, and it will reply; else the database's.
    /// Return them: where the reply was written after all, the request is completed and the retry comes too late.
    pub async fn reply<R: Serialize + ?Sized>(&self, reply: &R) -> Result<Outcome> {
        match self.checked(reply) {
            Ok(reply) => self.repliers.store.reply(&self.delivery, reply.get()).await.map(|()| Outcome::Settled),
            Err(error) => Ok(Outcome::reject(chain(&error))),
        }
    }

    /// What completes the request with `reply`, for a transaction of the handler's own, of any driver: effects, completion
    /// and reply commit together. Say [`Outcome::Settled`] after the commit, as with
    /// [`on_own_tx`](crate::ConsumerBuilder::on_own_tx).
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a reply that is too large, or no JSON.
    pub fn statement<R: Serialize + ?Sized>(&self, reply: &R) -> Result<Statement> {
        let reply = self.checked(reply)?;
        Ok(self.delivery.completion_with(&reply).in_schema(&self.repliers.schema))
    }

    fn checked<R: Serialize + ?Sized>(&self, reply: &R) -> Result<Box<serde_json::value::RawValue>> {
        let text = serde_json::value::to_raw_value(reply)
            .map_err(|error| Error::invalid("the reply does not serialize to JSON").with_source(error))?;
        check_payload(text.get(), self.repliers.payload_bytes_max).map_err(|error| error.context("the reply"))?;
        Ok(text)
    }
}

/// A closure over a typed payload and what replies as a [`Handler`].
pub(crate) struct RequestHandler<T, F> {
    f: F,
    repliers: Repliers,
    payload: std::marker::PhantomData<fn(T)>,
}

impl<T, F> RequestHandler<T, F> {
    pub(crate) fn new(f: F, repliers: Repliers) -> Self {
        Self { f, repliers, payload: std::marker::PhantomData }
    }
}

#[async_trait]
impl<T, F, Fut> Handler for RequestHandler<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(T, Delivery, Replier) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send,
{
    async fn handle(&self, delivery: Delivery) -> HandlerResult {
        let replier = self.repliers.of(&delivery);
        match delivery.json::<T>() {
            Ok(payload) => (self.f)(payload, delivery, replier).await,
            Err(error) => Ok(unreadable::<T>(&error)),
        }
    }
}

/// A closure over the delivery and what replies as a [`Handler`].
pub(crate) struct RawRequestHandler<F> {
    pub(crate) f: F,
    pub(crate) repliers: Repliers,
}

#[async_trait]
impl<F, Fut> Handler for RawRequestHandler<F>
where
    F: Fn(Delivery, Replier) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send,
{
    async fn handle(&self, delivery: Delivery) -> HandlerResult {
        let replier = self.repliers.of(&delivery);
        (self.f)(delivery, replier).await
    }
}

/// A closure over several deliveries and what replies as a [`BatchHandler`].
pub(crate) struct BatchRequestHandler<F> {
    pub(crate) f: F,
    pub(crate) repliers: Repliers,
}

#[async_trait]
impl<F, Fut> BatchHandler for BatchRequestHandler<F>
where
    F: Fn(Vec<Delivery>, Repliers) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = BatchResult> + Send,
{
    async fn handle(&self, deliveries: Vec<Delivery>) -> BatchResult {
        (self.f)(deliveries, self.repliers.clone()).await
    }
}
