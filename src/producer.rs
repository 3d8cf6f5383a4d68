//! Publishing as one application.

use std::{sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};
use tokio_postgres::Transaction;

use crate::{
    core::Core,
    error::{Error, ErrorKind, Result},
    message::{Answer, Message, MessageId, Request, check_name},
    outage::Outage,
    statement::Statement,
    telemetry::Event,
};

const RETRY_BASE: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// Publishes as one source application. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Producer {
    core: Arc<Core>,
    source: String,
}

impl Producer {
    pub(crate) fn new(core: Arc<Core>, source: String) -> Self {
        Self { core, source }
    }

    /// Publishes one message and returns its id. It is committed then.
    ///
    /// While other calls of this source for the same target are under way, those that come meanwhile share a statement, and a
    /// transaction: what many tasks publish side by side costs the server little more than
    /// [`publish_many`](Self::publish_many). None of them fails because another one does. What has a dedup key or a coalesce key,
    /// or expires, goes by itself.
    ///
    /// While the server certainly did nothing ([`Error::is_refused`](crate::Error::is_refused)) it is begun anew, for
    /// [`publish_within`](crate::BrokerConfig::publish_within), a minute by default: a failover passes unnoticed.
    ///
    /// Dropping the future leaves it open whether the message was published; so does
    /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown). With a [dedup key](Message::dedup_key) publishing it again is
    /// harmless, and done here for as long, after any transient error.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) before the server is asked: empty or over-long names, NUL characters, a
    /// payload that JSONB cannot hold or that is over the limit. Else the database's.
    pub async fn publish(&self, message: &Message) -> Result<MessageId> {
        self.check(message)?;
        let harmless = message.dedup_key.is_some();
        let publishing = self.core.store().telemetry().publishing(std::slice::from_ref(message));
        let traced = publishing.traced();
        let publish = self.retried(harmless, || self.core.store().publish(&self.source, &traced[0]));
        publishing.run(publish, |id| Some(*id)).await
    }

    /// Publishes many, all or nothing, in one statement (COPY for many); ids in the order given. Empty: empty.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); then none was published.
    pub async fn publish_many(&self, messages: &[Message]) -> Result<Vec<MessageId>> {
        self.check_all(messages)?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let harmless = messages.iter().all(|message| message.dedup_key.is_some());
        let publishing = self.core.store().telemetry().publishing(messages);
        let traced = publishing.traced();
        let publish = self.retried(harmless, || self.core.store().publish_many(&self.source, &traced));
        publishing.run(publish, |_| None).await
    }

    /// Publishes inside the caller's transaction, in one round trip: the message and the business data appear together or
    /// not at all. [`Broker::client`](crate::Broker::client) has a transaction for it; a deadpool transaction derefs to the type wanted here.
    ///
    /// # Errors
    /// As [`publish`](Self::publish). After a database error the transaction can only be rolled back.
    pub async fn publish_in(&self, tx: &Transaction<'_>, message: &Message) -> Result<MessageId> {
        self.check(message)?;
        let publishing = self.core.store().telemetry().publishing(std::slice::from_ref(message));
        let traced = publishing.traced();
        publishing.run(self.core.store().publish_in(tx, &self.source, &traced[0]), |id| Some(*id)).await
    }

    /// What publishes a message, for a transaction of another driver than tokio-postgres: as
    /// [`Message::statement`](crate::Message::statement), for this installation's schema and limits, and with the trace headers
    /// that [`publish`](Self::publish) adds.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), as [`publish`](Self::publish).
    pub fn statement(&self, message: &Message) -> Result<Statement> {
        self.check(message)?;
        let publishing = self.core.store().telemetry().publishing(std::slice::from_ref(message));
        Ok(publishing.traced()[0].statement_of(&self.source).in_schema(self.core.settings().schema()))
    }

    /// [`publish_many`](Self::publish_many) inside the caller's transaction.
    ///
    /// # Errors
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_many_in(&self, tx: &Transaction<'_>, messages: &[Message]) -> Result<Vec<MessageId>> {
        self.check_all(messages)?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let publishing = self.core.store().telemetry().publishing(messages);
        let traced = publishing.traced();
        publishing.run(self.core.store().publish_many_in(tx, &self.source, &traced), |_| None).await
    }

    /// Publishes a request, in a transaction of its own, and waits for what becomes of it, for `within` from then; see
    /// [`on_request`](crate::ConsumerBuilder::on_request) for the other side. A request that nobody has taken by then is
    /// cancelled, so that nobody works for a caller that left; with [`expires_after`](Message::expires_after) it is kept for as
    /// long as that says. A delay is not used.
    ///
    /// Answers arrive by a bell, over a connection of their own that listens, or where that is down by looking now and then
    /// ([`answers`](crate::BrokerConfig::answers)); a failover in between delays them. Dropping the future leaves the request,
    /// which expires by itself.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); [`Invalid`](crate::ErrorKind::Invalid) for a reply that cannot be read as `R`. That it
    /// ended without a reply is no error, but another [`Answer`]; [`Answer::reply`] makes it one.
    pub async fn request<R: DeserializeOwned>(&self, message: &Message, within: Duration) -> Result<Answer<R>> {
        self.check(message)?;
        if message.coalesce_key.is_some() {
            return Err(Error::invalid(
                "a request is answered, and so it cannot be replaced by another: leave its coalesce key out",
            ));
        }
        let requesters = self.core.requesters().await?;
        let began = Instant::now();
        let harmless = message.dedup_key.is_some();
        let publishing = self.core.store().telemetry().publishing(std::slice::from_ref(message));
        let traced = publishing.traced();
        let asking = requesters.ask();
        let wanted_for = message.expires_after.unwrap_or(within);
        let publish = self
            .retried(harmless, || self.core.store().request(&self.source, &traced[0], &asking.reply_to, wanted_for));
        let request = publishing.run(publish, |request| Some(request.id)).await?;
        let mut waiter = requesters.wait(&asking, &request);
        // From now on: where it was published late, its own time began late, too.
        let answer = match timeout(within, waiter.answer()).await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(Error::new(ErrorKind::Closed, "the broker was closed")),
            Err(_) if message.expires_after.is_some() => Answer::Late(request),
            Err(_) => self.core.store().give_up(&request).await?,
        };
        self.core.store().telemetry().tell(Event::Answered {
            target: &message.target,
            answer: answer.name(),
            took: began.elapsed(),
        });
        answer.read()
    }

    /// What has become of a request that was [late](Answer::Late), or is another process's; [`Answer::Late`] again while it has
    /// not ended. Does not wait.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a reply that cannot be read as `R`; else the database's.
    pub async fn answer<R: DeserializeOwned>(&self, request: &Request) -> Result<Answer<R>> {
        let mut answers = self.core.store().answers(&[request.id], &[&request.reply_to]).await?;
        answers.pop().map_or_else(|| Answer::Late(request.clone()), |(_, answer)| answer).read()
    }

    /// Whether a message would be accepted, without asking the server: what [`publish`](Self::publish) checks first. For who
    /// publishes many and wants to say which one is bad.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), as [`publish`](Self::publish).
    pub fn check(&self, message: &Message) -> Result<()> {
        self.check_all(std::slice::from_ref(message))
    }

    /// Repeats a publish that did not happen, and one that may have where that is harmless.
    async fn retried<T, F: Future<Output = Result<T>>>(&self, harmless: bool, publish: impl FnMut() -> F) -> Result<T> {
        let (began, within) = (Instant::now(), self.core.config().publish_within);
        let again =
            |error: &Error, _| began.elapsed() < within && (error.is_refused() || (harmless && error.is_transient()));
        let outage = Outage::of_one_call("publishing again until it works").pauses(RETRY_BASE, RETRY_CAP);
        outage.repeat(again, publish).await
    }

    fn check_all(&self, messages: &[Message]) -> Result<()> {
        check_name("source", &self.source)?;
        messages.iter().enumerate().try_for_each(|(at, message)| {
            message.validate(self.core.config().payload_bytes_max).map_err(|error| match messages.len() {
                1 => error,
                _ => error.context(format_args!("message {} of {}", at + 1, messages.len())),
            })
        })
    }
}
