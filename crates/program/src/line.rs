//! A message as a line of JSON: what `consume --complete` and `peek` print.

use doorbell::{Delivery, MessageId, operate::StoredMessage};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::timestamp::rfc3339;

/// One message, as documented by their `--help`.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    id: MessageId,
    attempt: i32,
    source: &'a str,
    target: &'a str,
    #[serde(rename = "type")]
    record_type: &'a str,
    priority: i32,
    headers: Box<RawValue>,
    created_at: String,
    /// As given: numbers keep all their digits.
    data: &'a RawValue,
}

impl<'a> Line<'a> {
    pub(crate) fn of_delivery(delivery: &'a Delivery) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id: delivery.id,
            attempt: delivery.attempt,
            source: &delivery.source,
            target: &delivery.target,
            record_type: &delivery.record_type,
            priority: delivery.priority,
            headers: to_raw_value(&delivery.headers)?,
            created_at: rfc3339(delivery.created_at),
            data: serde_json::from_str(delivery.payload())?,
        })
    }

    pub(crate) fn of_stored(message: &'a StoredMessage) -> Result<Self, serde_json::Error> {
        let row = &message.row;
        Ok(Self {
            id: row.id,
            attempt: row.attempt,
            source: &row.source,
            target: &row.target,
            record_type: &row.record_type,
            priority: row.priority,
            headers: RawValue::from_string(message.headers.clone().unwrap_or_else(|| "{}".to_owned()))?,
            created_at: rfc3339(row.created_at),
            data: serde_json::from_str(message.payload.as_deref().unwrap_or("null"))?,
        })
    }
}
