//! A message on its way in. On its way out it is a [`Delivery`].

mod answer;
mod checks;
mod delivery;

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use serde_json::value::RawValue;

use self::checks::check_key;
use crate::error::{Error, Result};

pub use answer::{Answer, Request};
pub(crate) use checks::{check_name, check_payload};
pub use delivery::{Delivery, Found};

/// The id of a published message; unique over the table and its archive.
pub type MessageId = i64;

/// String headers that travel beside the payload (`traceparent`, correlation ids, …).
pub type Headers = BTreeMap<String, String>;

/// A message to publish. Its source is the [`Producer`](crate::Producer)'s.
///
/// Nothing is checked until it is published, so the builder calls cannot fail; only [`Message::new`] can, when the
/// payload does not serialize.
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) target: String,
    pub(crate) record_type: String,
    pub(crate) payload: Box<RawValue>,
    pub(crate) priority: i32,
    pub(crate) delay: Option<Duration>,
    pub(crate) headers: Headers,
    pub(crate) ordering_key: Option<String>,
    pub(crate) dedup_key: Option<String>,
    pub(crate) max_retries: Option<u32>,
    pub(crate) expires_after: Option<Duration>,
    pub(crate) coalesce_key: Option<String>,
    pub(crate) max_wait: Option<Duration>,
}

impl Message {
    /// Longest name of an application or record type, in characters (the schema's limit).
    pub const NAME_CHARS_MAX: usize = checks::NAME_CHARS_MAX;
    /// Longest ordering, dedup or coalesce key, in characters (the schema's limit).
    pub const KEY_CHARS_MAX: usize = checks::KEY_CHARS_MAX;
    /// Largest payload as JSON text, in bytes, unless [`payload_bytes_max`](crate::BrokerConfig::payload_bytes_max) says
    /// another.
    pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
    /// Deepest nesting of a payload. serde_json's reader stops at 128, PostgreSQL's far later; what one of the two cannot
    /// read must not be published.
    pub const PAYLOAD_DEPTH_MAX: usize = checks::PAYLOAD_DEPTH_MAX;

    /// A message of `record_type` for the application `target`, with `payload` as JSON.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when the payload does not serialize to JSON.
    pub fn new<T: Serialize + ?Sized>(
        target: impl Into<String>,
        record_type: impl Into<String>,
        payload: &T,
    ) -> Result<Self> {
        let record_type = record_type.into();
        let payload = serde_json::value::to_raw_value(payload).map_err(|error| {
            Error::invalid(format!("the payload of a {record_type:?} message does not serialize to JSON"))
                .with_source(error)
        })?;
        Ok(Self::from_raw(target, record_type, payload))
    }

    /// A message whose payload is JSON text already.
    pub fn from_raw(target: impl Into<String>, record_type: impl Into<String>, payload: Box<RawValue>) -> Self {
        Self {
            target: target.into(),
            record_type: record_type.into(),
            payload,
            priority: 0,
            delay: None,
            headers: Headers::new(),
            ordering_key: None,
            dedup_key: None,
            max_retries: None,
            expires_after: None,
            coalesce_key: None,
            max_wait: None,
        }
    }

    /// The application it is for.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Higher goes first; default 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Not before `delay` from now, by the server's clock; default at once.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Messages of the target with the same key are handled one at a time, in the order in which they were published, by
    /// whichever process; one that fails for good blocks those after it until it is redriven or cancelled. Default: none, and
    /// then nothing is promised about the order of handling.
    pub fn ordering_key(mut self, key: impl Into<String>) -> Self {
        self.ordering_key = Some(key.into());
        self
    }

    /// Makes publishing this message again harmless: the same key of the same source inside the dedup window (7 days by
    /// default) answers with the first message's id.
    pub fn dedup_key(mut self, key: impl Into<String>) -> Self {
        self.dedup_key = Some(key.into());
        self
    }

    /// Retries after the first attempt; default: the policy of the target and record type (3).
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// When nobody has taken it after so long, nobody does any more, and within two seconds it is cancelled, with the reason
    /// `expired`; what is being handled then is not touched, unless it is put back. Copies for subscribers expire, too.
    /// Default: what `expire_after` of the target says, after it is due; else never.
    pub fn expires_after(mut self, after: Duration) -> Self {
        self.expires_after = Some(after);
        self
    }

    /// Only the latest counts: while the last message under this key (of the same source, target and record type) waits and
    /// nobody has taken it, publishing again replaces its payload and headers and answers with its id. With a
    /// [`delay`](Self::delay) each replacement begins the delay anew (a debounce), until [`max_wait`](Self::max_wait). Priority,
    /// ordering key and retries stay those of the first. What is being taken at that moment is left alone, and a new message is
    /// published: nothing is lost, and whoever handles a message twice sees the latest last.
    ///
    /// Not beside a [dedup key](Self::dedup_key), and not for topics: publishing fails with
    /// [`Invalid`](crate::ErrorKind::Invalid). Publishers of one key wait for each other's transactions.
    pub fn coalesce(mut self, key: impl Into<String>) -> Self {
        self.coalesce_key = Some(key.into());
        self
    }

    /// How long after the first publish under its [coalesce key](Self::coalesce) later ones may put it off. Default: ten times
    /// the delay. The delay itself: it is handled that long after the first publish, whatever comes.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }

    /// The check before the server is asked: what it would refuse, said in our words, and what it would accept but no
    /// consumer could read.
    pub(crate) fn validate(&self, payload_bytes_max: usize) -> Result<()> {
        check_name("target", &self.target)?;
        check_name("record type", &self.record_type)?;
        check_key("ordering key", self.ordering_key.as_deref())?;
        check_key("dedup key", self.dedup_key.as_deref())?;
        check_key("coalesce key", self.coalesce_key.as_deref())?;
        if let (Some(dedup), Some(coalesce)) = (&self.dedup_key, &self.coalesce_key) {
            return Err(Error::invalid(format!(
                "a message has a dedup key, which keeps the first, or a coalesce key, which keeps the latest; not both: \
                 {dedup:?} and {coalesce:?}"
            )));
        }
        if self.coalesce_key.is_none() && self.max_wait.is_some() {
            return Err(Error::invalid(
                "max_wait says how long a message with a coalesce key may be put off, and there is none",
            ));
        }
        if let Some((name, _)) = self.headers.iter().find(|(name, value)| name.contains('\0') || value.contains('\0')) {
            return Err(Error::invalid(format!(
                "header {name:?} contains a NUL character, which PostgreSQL cannot store"
            )));
        }
        check_payload(self.payload.get(), payload_bytes_max).map_err(|error| {
            error.context(format_args!("payload of a {:?} message for {:?}", self.record_type, self.target))
        })
    }

    pub(crate) fn headers_json(&self) -> Option<String> {
        (!self.headers.is_empty()).then(|| serde_json::to_string(&self.headers).expect("a map of strings serializes"))
    }

    pub(crate) fn delay_ms(&self) -> Option<i64> {
        self.delay.map(storable_ms)
    }

    pub(crate) fn expires_ms(&self) -> Option<i64> {
        self.expires_after.map(storable_ms)
    }

    pub(crate) fn max_wait_ms(&self) -> Option<i64> {
        self.max_wait.map(storable_ms)
    }
}

/// A delay as the server takes it: at most a century, so that adding it to a time cannot overflow.
pub(crate) fn storable_ms(delay: Duration) -> i64 {
    const CENTURY: u128 = 100 * 365 * 24 * 3600 * 1000;
    delay.as_millis().min(CENTURY) as i64
}

#[cfg(test)]
#[path = "tests/message.rs"]
mod tests;
