//! Messages as lines on stdout.

use std::sync::Arc;

use async_trait::async_trait;
use doorbell::{Delivery, Handler, HandlerResult, Outcome};
use tokio::{
    io::{AsyncWriteExt, Stdout, stdout},
    sync::Mutex,
};

use super::tally::Tally;
use crate::{exit::Failure, line::Line, output};

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
        let _counted = self.tally.counted(1);
        let mut line = output::shown(serde_json::to_string(&Line::of_delivery(&delivery)?)?);
        line.push('\n');
        match self.write(line.as_bytes()).await {
            Ok(()) => Ok(Outcome::Done),
            Err(error) => match self.tally.give_up(Failure::from(error).context("cannot write to stdout")).await {},
        }
    }
}
