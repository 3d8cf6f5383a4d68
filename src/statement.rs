//! What users run in transactions of any driver's: a text with one parameter, and its value.

use std::{borrow::Cow, time::UNIX_EPOCH};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::Result,
    message::{Delivery, Headers, Message, check_name},
    schema::Schema,
};

const PUBLISH: &str = "select integration.publish(m ->> 'source', m ->> 'target', m ->> 'type', m -> 'data', \
    (m ->> 'priority')::integer, (m ->> 'delay_ms')::bigint * interval '1 ms', m -> 'headers', m ->> 'ordering_key', \
    m ->> 'dedup_key', (m ->> 'max_retries')::integer, \
    (m ->> 'expires_ms')::bigint * interval '1 ms') as id from (select $1::text::jsonb) v (m)";

const COMPLETE: &str = "select integration.complete((m ->> 'id')::bigint, (m ->> 'attempt')::integer, m ->> 'owner', \
    timestamptz 'epoch' + (m ->> 'created_us')::bigint * interval '1 us') from (select $1::text::jsonb) v (m)";

/// An SQL statement for any driver: a text whose only parameter, `$1`, takes [`value`](Self::value) as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    sql: Cow<'static, str>,
    value: String,
}

impl Statement {
    /// The text. The same for all statements of a kind, so that a driver prepares it once.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// What `$1` is: JSON, to be sent as text.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The same for an installation under another name than `integration`.
    pub fn in_schema(self, schema: &Schema) -> Self {
        Self { sql: Cow::Owned(schema.sql(&self.sql).into_owned()), ..self }
    }

    fn new(sql: &'static str, value: &impl Serialize) -> Self {
        let value = serde_json::to_string(value).expect("strings, numbers and JSON text serialize");
        Self { sql: Cow::Borrowed(sql), value }
    }
}

#[derive(Serialize)]
struct Publish<'a> {
    source: &'a str,
    target: &'a str,
    r#type: &'a str,
    data: &'a RawValue,
    priority: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<i64>,
    #[serde(skip_serializing_if = "Headers::is_empty")]
    headers: &'a Headers,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedup_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<i64>,
}

const REPLY: &str = "select integration.reply((m ->> 'id')::bigint, (m ->> 'attempt')::integer, m ->> 'owner', m -> 'reply', \
    timestamptz 'epoch' + (m ->> 'created_us')::bigint * interval '1 us') from (select $1::text::jsonb) v (m)";

#[derive(Serialize)]
struct Complete<'a> {
    id: i64,
    attempt: i32,
    owner: &'a str,
    created_us: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<&'a RawValue>,
}

impl Message {
    /// What publishes this message as `source`, for a transaction of any driver: the message and the business data appear
    /// together or not at all. The statement returns one row, of the column `id` (`bigint`). No [`Broker`](crate::Broker) is
    /// needed, and no trace header is added; [`Producer::statement`](crate::Producer::statement) adds it.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), as [`publish`](crate::Producer::publish), with the default limit of 1 MiB for
    /// the payload.
    pub fn statement(&self, source: &str) -> Result<Statement> {
        check_name("source", source)?;
        self.validate(Self::PAYLOAD_BYTES_MAX)?;
        Ok(self.statement_of(source))
    }

    /// Of a message that was checked.
    pub(crate) fn statement_of(&self, source: &str) -> Statement {
        let publish = Publish {
            source,
            target: &self.target,
            r#type: &self.record_type,
            data: &self.payload,
            priority: self.priority,
            delay_ms: self.delay_ms(),
            headers: &self.headers,
            ordering_key: self.ordering_key.as_deref(),
            dedup_key: self.dedup_key.as_deref(),
            max_retries: self.max_retries.map(|retries| retries.min(i32::MAX as u32)),
            expires_ms: self.expires_ms(),
        };
        Statement::new(PUBLISH, &publish)
    }
}

impl Delivery {
    /// What completes this message, for the transaction of any driver in which its handler works. Fails with the SQLSTATE
    /// `MQ001` when the lease was lost: another attempt may run, so nothing of this one may commit. See
    /// [`on_own_tx`](crate::ConsumerBuilder::on_own_tx), whose handlers get it for their installation's schema.
    pub(crate) fn completion(&self) -> Statement {
        Statement::new(COMPLETE, &self.named(None))
    }

    /// What completes it with its reply; else as [`completion`](Self::completion).
    pub(crate) fn completion_with(&self, reply: &RawValue) -> Statement {
        Statement::new(REPLY, &self.named(Some(reply)))
    }

    fn named<'a>(&'a self, reply: Option<&'a RawValue>) -> Complete<'a> {
        // Times of messages are PostgreSQL's, of whole microseconds, and after the year 1.
        let created_us = match self.created_at.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_micros() as i64,
            Err(before) => -(before.duration().as_micros() as i64),
        };
        Complete { id: self.id, attempt: self.attempt, owner: &self.owner, created_us, reply }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_says_what_was_given_and_leaves_out_what_was_not() {
        let message = Message::new("billing", "order.placed", &serde_json::json!({"id": 7})).expect("it serializes");
        let statement = message.statement("shop").expect("it may be published");
        let value = r#"{"source":"shop","target":"billing","type":"order.placed","data":{"id":7},"priority":0}"#;
        assert_eq!(statement.value(), value);
        let full = message.dedup_key("k").ordering_key("o").max_retries(u32::MAX).header("a", "b").priority(-1);
        let full = full.delay(std::time::Duration::from_millis(1500)).statement("shop").expect("it may be published");
        assert!(full.value().ends_with(
            r#""priority":-1,"delay_ms":1500,"headers":{"a":"b"},"ordering_key":"o","dedup_key":"k","max_retries":2147483647}"#
        ));
        assert_eq!(full.sql(), statement.sql());
        let elsewhere = statement.in_schema(&Schema::new("orders").expect("a name"));
        assert!(elsewhere.sql().starts_with("select orders.publish("), "{}", elsewhere.sql());
    }

    #[test]
    fn what_may_not_be_published_has_no_statement() {
        let message = Message::new("", "n", &1).expect("it serializes");
        assert_eq!(message.statement("shop").expect_err("no target").kind(), crate::ErrorKind::Invalid);
        let message = Message::new("billing", "n", &1).expect("it serializes");
        assert!(message.statement("").expect_err("no source").to_string().contains("source"));
    }

    #[test]
    fn times_before_and_after_the_epoch_are_whole_microseconds() {
        let mut delivery = Delivery::for_test(Message::new("billing", "n", &1).expect("it serializes"));
        for (offset, expected) in [(1_764_111_222_333_444_i64, "1764111222333444"), (-1_500_000, "-1500000")] {
            let span = std::time::Duration::from_micros(offset.unsigned_abs());
            delivery.created_at = if offset < 0 { UNIX_EPOCH - span } else { UNIX_EPOCH + span };
            assert!(delivery.completion().value().ends_with(&format!("\"created_us\":{expected}}}")));
        }
    }
}
