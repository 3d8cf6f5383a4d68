//! What users run in transactions of any driver's: a text with one parameter, and its value.

use std::borrow::Cow;

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
    (m ->> 'expires_ms')::bigint * interval '1 ms', m ->> 'coalesce_key', \
    (m ->> 'max_wait_ms')::bigint * interval '1 ms') as id from (select $1::text::jsonb) v (m)";

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
    #[serde(skip_serializing_if = "Option::is_none")]
    coalesce_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_wait_ms: Option<i64>,
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
            coalesce_key: self.coalesce_key.as_deref(),
            max_wait_ms: self.max_wait_ms(),
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
        let created_us = self.created_us();
        Complete { id: self.id, attempt: self.attempt, owner: &self.owner, created_us, reply }
    }
}

#[cfg(test)]
#[path = "tests/statement.rs"]
mod tests;
