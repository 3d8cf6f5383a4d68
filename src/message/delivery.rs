//! A message on its way out.

use std::{fmt, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{Headers, Message, MessageId};
use crate::outcome::Outcome;

/// How a claim came about; a rising share of sweeps means notifications get lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Found {
    /// A notification woke the consumer.
    Bell,
    /// The consumer was awake already.
    Drain,
    /// The periodic sweep.
    Sweep,
}

impl Found {
    /// As telemetry names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bell => "bell",
            Self::Drain => "drain",
            Self::Sweep => "sweep",
        }
    }
}

/// A claimed message: what the handler gets. Owned by this consumer until it is settled or the lease is lost.
#[derive(Clone)]
pub struct Delivery {
    /// The message's id.
    pub id: MessageId,
    /// The attempt, 1 for the first: the fence that makes a stale owner fail.
    pub attempt: i32,
    /// The application that published it.
    pub source: String,
    /// The application it is for.
    pub target: String,
    /// Its type.
    pub record_type: String,
    /// Higher was taken first.
    pub priority: i32,
    /// Failed runs so far; 0 on the first attempt.
    pub retry_count: i32,
    /// How often it was put back after it had ended.
    pub redrive_count: i32,
    /// Headers given by the publisher; values that are not strings appear as JSON text.
    pub headers: Headers,
    /// Its ordering key: messages of one target with the same one are handled one at a time, in order.
    pub ordering_key: Option<String>,
    /// When it was published, by the server's clock.
    pub created_at: std::time::SystemTime,
    /// How old it was when it was claimed, by the server's reckoning: no clock of this machine is involved.
    pub age: Duration,
    /// How it was found.
    pub found: Found,
    /// What it is a copy of.
    pub(crate) origin: Option<MessageId>,
    /// When it became pending again, if it did.
    pub(crate) requeued_at: Option<std::time::SystemTime>,
    /// Whether it tests the water for a half-open breaker.
    pub(crate) canary: bool,
    /// It was taken with others of its key, from beyond where the look ended.
    pub(crate) ahead: bool,
    /// A batch that it was in has failed: it is handled by itself.
    pub(crate) alone: bool,
    /// When it arrived in this process.
    pub(crate) received: tokio::time::Instant,
    /// Who owns it.
    pub(crate) owner: std::sync::Arc<str>,
    pub(crate) payload: Box<str>,
    /// Why this program cannot read what is stored; its handler is not asked then, and the message fails with that reason.
    pub(crate) unreadable: Option<String>,
}

impl Delivery {
    /// A message as its handler gets it on the first attempt, for tests of the handler: nothing is published, no database is
    /// needed. It has the id 1, the source `test`, the epoch as its time and the age zero; set its public fields to what the handler is to see.
    ///
    /// What [`publish`](crate::Producer::publish) would refuse is not refused here.
    /// For handlers that work in the transaction of their message, `Trial` of the crate `doorbell-server` (feature `trial`) has a
    /// private server.
    ///
    /// ```
    /// use doorbell::{Delivery, HandlerResult, Message, Outcome};
    ///
    /// async fn charge(delivery: Delivery) -> HandlerResult {
    ///     let order: u64 = delivery.json()?;
    ///     Ok(if delivery.attempt > 3 { Outcome::reject(format!("order {order} is hopeless")) } else { Outcome::Done })
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let mut delivery = Delivery::for_test(Message::new("billing", "order.placed", &7)?);
    /// assert_eq!(charge(delivery.clone()).await?, Outcome::Done);
    /// delivery.attempt = 4;
    /// assert_eq!(charge(delivery).await?, Outcome::reject("order 7 is hopeless"));
    /// # Ok(()) }
    /// ```
    pub fn for_test(message: Message) -> Self {
        let Message { target, record_type, payload, priority, headers, ordering_key, .. } = message;
        Self {
            id: 1,
            attempt: 1,
            source: "test".to_owned(),
            target,
            record_type,
            priority,
            retry_count: 0,
            redrive_count: 0,
            headers,
            ordering_key,
            created_at: std::time::SystemTime::UNIX_EPOCH,
            age: Duration::ZERO,
            found: Found::Bell,
            origin: None,
            requeued_at: None,
            canary: false,
            ahead: false,
            alone: false,
            received: tokio::time::Instant::now(),
            owner: "test".into(),
            payload: payload.into(),
            unreadable: None,
        }
    }

    /// What becomes of a message that cannot be read, in place of what its handler would say.
    pub(crate) fn refusal(&self) -> Option<Outcome> {
        self.unreadable.as_ref().map(|reason| Outcome::reject(reason.as_str()))
    }

    /// The payload as JSON text.
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// What names an effect of its handling to another system: the same in each attempt, another one once it was redriven. Hand it over
    /// before the effect (an idempotency key of an HTTP call, a unique column), so that the other system recognises what is done again:
    /// that closes the window between an effect and its record, which nothing here can. `name`: one for each effect of the
    /// handler. In SQL: `integration.effect_key`.
    pub fn effect_key(&self, name: &str) -> String {
        format!("{}:{}:{}:{name}", self.id, self.created_us(), self.redrive_count)
    }

    /// When it was published, in microseconds since the epoch.
    pub(crate) fn created_us(&self) -> i64 {
        // Times of messages are PostgreSQL's, of whole microseconds, and after the year 1.
        match self.created_at.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => after.as_micros() as i64,
            Err(before) => -(before.duration().as_micros() as i64),
        }
    }

    /// The message that this one is a copy of, the first where copies are handed on: what was published to a topic, or is
    /// [replayed](crate::operate::Operator::replay). The same for all subscribers, and however often it is replayed. `None`: it
    /// is no copy.
    pub fn origin(&self) -> Option<MessageId> {
        self.origin
    }

    /// Whether it was published again, from history: by [`replay`](crate::operate::Operator::replay), or for who has subscribed
    /// since some time ago.
    pub fn replayed(&self) -> bool {
        self.headers.get("replayed").is_some_and(|value| value == "true")
    }

    /// Whether its publisher waits for a reply, see [`on_request`](crate::ConsumerBuilder::on_request).
    pub fn wants_reply(&self) -> bool {
        self.headers.contains_key("reply_to")
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// serde_json's, naming the place: the payload is not a `T`, or holds a number or nesting that serde_json refuses.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.payload)
    }
}

/// Shows everything but the payload.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .field("source", &self.source)
            .field("target", &self.target)
            .field("record_type", &self.record_type)
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}
