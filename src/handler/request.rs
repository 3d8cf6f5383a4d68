//! Handlers of requests, which reply.

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{Handler, HandlerResult, chain, unreadable};
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

/// What makes one for each request.
#[derive(Clone, Debug)]
pub(crate) struct Repliers {
    pub(crate) store: Store,
    pub(crate) schema: Schema,
    pub(crate) payload_bytes_max: usize,
}

impl Repliers {
    fn of(&self, delivery: &Delivery) -> Replier {
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

    fn checked<R: Serialize + ?Sized>(&self, reply: &R) -> Result<Box<RawValue>> {
        let text = written(reply)?;
        check_reply(text.get(), self.repliers.payload_bytes_max)?;
        Ok(text)
    }
}

/// # Errors
/// It does not serialize to JSON.
pub(super) fn written<R: Serialize + ?Sized>(reply: &R) -> Result<Box<RawValue>> {
    serde_json::value::to_raw_value(reply)
        .map_err(|error| Error::invalid("the reply does not serialize to JSON").with_source(error))
}

/// # Errors
/// It is too large, or nothing that can be stored.
pub(crate) fn check_reply(reply: &str, bytes_max: usize) -> Result<()> {
    check_payload(reply, bytes_max).map_err(|error| error.context("the reply"))
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
