//! The nouns: a [`Message`] on its way in, a [`Delivery`] on its way out.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

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
}

impl Message {
    /// Longest name of an application or record type, in characters (the schema's limit).
    pub const NAME_CHARS_MAX: usize = 50;
    /// Longest ordering or dedup key, in characters (the schema's limit).
    pub const KEY_CHARS_MAX: usize = 200;
    /// Deepest nesting of a payload. serde_json's reader stops at 128, PostgreSQL's far later; what one of the two cannot
    /// read must not be published.
    pub const PAYLOAD_DEPTH_MAX: usize = 120;

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

    /// Stored with the message and handed to the handler. Ordering by key is not enforced yet.
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

    /// The check before the server is asked: what it would refuse, said in our words, and what it would accept but no
    /// consumer could read.
    pub(crate) fn validate(&self, payload_bytes_max: usize) -> Result<()> {
        check_name("target", &self.target)?;
        check_name("record type", &self.record_type)?;
        check_key("ordering key", self.ordering_key.as_deref())?;
        check_key("dedup key", self.dedup_key.as_deref())?;
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
}

/// A delay as the server takes it: at most a century, so that adding it to a time cannot overflow.
pub(crate) fn storable_ms(delay: Duration) -> i64 {
    const CENTURY: u128 = 100 * 365 * 24 * 3600 * 1000;
    delay.as_millis().min(CENTURY) as i64
}

/// Checks the name of an application or record type: 1 to 50 characters, no NUL.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let chars = name.chars().count();
    if chars == 0 {
        return Err(Error::invalid(format!(
            "the {what} is empty; give a name of 1 to {} characters",
            Message::NAME_CHARS_MAX
        )));
    }
    if chars > Message::NAME_CHARS_MAX {
        return Err(Error::invalid(format!(
            "the {what} {name:?} has {chars} characters; at most {} are allowed",
            Message::NAME_CHARS_MAX
        )));
    }
    if name.contains('\0') {
        return Err(Error::invalid(format!(
            "the {what} {name:?} contains a NUL character, which PostgreSQL cannot store"
        )));
    }
    Ok(())
}

fn check_key(what: &str, key: Option<&str>) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    let chars = key.chars().count();
    if chars == 0 || chars > Message::KEY_CHARS_MAX {
        return Err(Error::invalid(format!(
            "the {what} has {chars} characters; 1 to {} are allowed",
            Message::KEY_CHARS_MAX
        )));
    }
    if key.contains('\0') {
        return Err(Error::invalid(format!("the {what} contains a NUL character, which PostgreSQL cannot store")));
    }
    Ok(())
}

/// What JSONB cannot hold (NUL escapes, lone surrogates) or a reader cannot read (too deep), found in one pass over the text.
fn check_payload(text: &str, bytes_max: usize) -> Result<()> {
    if text.len() > bytes_max {
        return Err(Error::invalid(format!(
            "{} bytes; the limit is {bytes_max} (raise payload_bytes_max, at most 64 MiB, or store the data elsewhere and send a reference)",
            text.len()
        )));
    }
    let bytes = text.as_bytes();
    let (mut depth, mut in_string, mut at) = (0usize, false, 0usize);
    while at < bytes.len() {
        match (in_string, bytes[at]) {
            (true, b'"') | (false, b'"') => in_string = !in_string,
            (true, b'\\') => {
                at += check_escape(text, at)?;
                continue;
            }
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > Message::PAYLOAD_DEPTH_MAX {
                    return Err(Error::invalid(format!("nested deeper than {} levels", Message::PAYLOAD_DEPTH_MAX)));
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Checks the escape at `at` (a backslash inside a string) and returns its length.
fn check_escape(text: &str, at: usize) -> Result<usize> {
    let unit = |at: usize| {
        text.get(at..at + 6)
            .filter(|escape| escape.starts_with("\\u"))
            .and_then(|escape| u16::from_str_radix(&escape[2..], 16).ok())
    };
    if text.as_bytes().get(at + 1) != Some(&b'u') {
        return Ok(2);
    }
    match unit(at) {
        Some(0) => Err(Error::invalid("contains \\u0000, which JSONB cannot store")),
        Some(0xD800..=0xDBFF) => match unit(at + 6) {
            Some(0xDC00..=0xDFFF) => Ok(12),
            _ => Err(Error::invalid("contains half a surrogate pair, which JSONB cannot store")),
        },
        Some(0xDC00..=0xDFFF) => Err(Error::invalid("contains half a surrogate pair, which JSONB cannot store")),
        _ => Ok(6),
    }
}

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
    /// The publisher's ordering key.
    pub ordering_key: Option<String>,
    /// When it was published, by the server's clock.
    pub created_at: std::time::SystemTime,
    /// How old it was when it was claimed, by the server's reckoning: no clock of this machine is involved.
    pub age: Duration,
    /// How it was found.
    pub found: Found,
    /// Whether it tests the water for a half-open breaker.
    pub(crate) canary: bool,
    /// When it arrived in this process.
    pub(crate) received: tokio::time::Instant,
    /// Who owns it.
    pub(crate) owner: std::sync::Arc<str>,
    pub(crate) payload: Box<str>,
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
            canary: false,
            received: tokio::time::Instant::now(),
            owner: "test".into(),
            payload: payload.into(),
        }
    }

    /// The payload as JSON text.
    pub fn payload(&self) -> &str {
        &self.payload
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

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(payload: &str) -> Message {
        Message::from_raw("billing", "order", RawValue::from_string(payload.to_owned()).expect("valid JSON"))
    }

    fn refusal(message: &Message) -> String {
        message.validate(1 << 20).expect_err("refused").to_string()
    }

    #[test]
    fn payloads_that_jsonb_cannot_hold_are_refused_before_the_server_is_asked() {
        assert!(refusal(&raw(r#"{"a":"x\u0000"}"#)).contains("u0000"));
        assert!(refusal(&raw(r#"["\ud800"]"#)).contains("surrogate"));
        assert!(refusal(&raw(r#"["\ud800\u0041"]"#)).contains("surrogate"));
        assert!(refusal(&raw(r#"["\udc00"]"#)).contains("surrogate"));
        assert!(refusal(&raw(&format!("{}{}", "[".repeat(121), "]".repeat(121)))).contains("120"));
    }

    #[test]
    fn payloads_that_only_look_dangerous_are_accepted() {
        for payload in
            [r#"{"a":"\\u0000"}"#, r#"["\ud83d\ude00"]"#, r#"["[[[[ \" {{{"]"#, r#""\u00e9""#, "1e400", "null"]
        {
            raw(payload).validate(1 << 20).unwrap_or_else(|error| panic!("{payload}: {error}"));
        }
    }

    #[test]
    fn names_are_counted_in_characters_and_refused_with_their_limit() {
        let mut message = raw("1");
        message.target = "𝕏".repeat(50);
        message.validate(1 << 20).expect("50 four-byte characters are allowed");
        message.target.push('x');
        assert!(refusal(&message).contains("51 characters"));
        message.target = String::new();
        assert!(refusal(&message).contains("empty"));
        message.target = "a\0b".into();
        assert!(refusal(&message).contains("NUL"));
    }

    #[test]
    fn a_payload_over_the_limit_says_its_size_and_the_limit() {
        let error = raw(&format!("\"{}\"", "x".repeat(100))).validate(50).expect_err("refused").to_string();
        assert!(error.contains("102 bytes") && error.contains("50"), "{error}");
    }
}
