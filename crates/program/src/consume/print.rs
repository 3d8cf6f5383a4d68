//! Messages as lines on stdout.

use std::sync::Arc;

use async_trait::async_trait;
use doorbell::{Delivery, Handler, HandlerResult, Headers, MessageId, Outcome};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncWriteExt, Stdout, stdout},
    sync::Mutex,
};

use super::tally::Tally;
use crate::{exit::Failure, output, timestamp::rfc3339};

/// Completes a message when its line is written.
pub(super) struct Print {
    stdout: Mutex<Stdout>,
    tally: Arc<Tally>,
}

impl Print {
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        Self { stdout: Mutex::new(stdout()), tally }
    }

    /// Lines are written whole, one after the other; flushed, because only what has left us counts as handled.
    async fn write(&self, line: &[u8]) -> std::io::Result<()> {
        let mut stdout = self.stdout.lock().await;
        stdout.write_all(line).await?;
        stdout.flush().await
    }
}

#[async_trait]
impl Handler for Print {
    async fn handle(&self, delivery: Delivery) -> HandlerResult {
        let mut line = output::shown(serde_json::to_string(&Line::new(&delivery)?)?);
        line.push('\n');
        match self.write(line.as_bytes()).await {
            Ok(()) => Ok(Outcome::Done),
            Err(error) => match self.tally.give_up(Failure::from(error).context("cannot write to stdout")).await {},
        }
    }
}

/// One message, as documented by `doorbell consume --help`.
#[derive(Serialize)]
struct Line<'a> {
    id: MessageId,
    attempt: i32,
    source: &'a str,
    target: &'a str,
    #[serde(rename = "type")]
    record_type: &'a str,
    priority: i32,
    headers: &'a Headers,
    created_at: String,
    /// As given: numbers keep all their digits.
    data: &'a RawValue,
}

impl<'a> Line<'a> {
    fn new(delivery: &'a Delivery) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id: delivery.id,
            attempt: delivery.attempt,
            source: &delivery.source,
            target: &delivery.target,
            record_type: &delivery.record_type,
            priority: delivery.priority,
            headers: &delivery.headers,
            created_at: rfc3339(delivery.created_at),
            data: serde_json::from_str(delivery.payload())?,
        })
    }
}
