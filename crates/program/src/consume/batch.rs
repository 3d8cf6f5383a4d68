//! A program per batch of messages.

use std::{collections::HashSet, process::Stdio};

use async_trait::async_trait;
use doorbell::{BatchHandler, BatchOutcome, BatchResult, Delivery, HandlerError, MessageId, Outcome};
use serde::Deserialize;

use super::exec::{Exec, SAID_BYTES_MAX, outcome};
use crate::{duration, line::Line};

/// Runs it for every batch.
pub(super) struct ExecBatch(pub(super) Exec);

/// A line of the program, as documented by `consume --help`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    id: MessageId,
    outcome: Word,
    reason: Option<String>,
    after: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Done,
    Retry,
    Snooze,
    Unavailable,
    Reject,
}

#[async_trait]
impl BatchHandler for ExecBatch {
    /// Dropped, it kills the program with all its children.
    async fn handle(&self, deliveries: Vec<Delivery>) -> BatchResult {
        let Self(exec) = self;
        let (mut lines, count) = (Vec::new(), deliveries.len());
        for delivery in &deliveries {
            serde_json::to_writer(&mut lines, &Line::of_delivery(delivery)?)?;
            lines.push(b'\n');
        }
        let mut command = exec.base();
        command.env("DOORBELL_BATCH", count.to_string());
        if let Some(first) = deliveries.first() {
            command.env("DOORBELL_TARGET", &first.target);
        }
        command.stdout(Stdio::piped());
        // Of a batch that fails as a whole, each is handled once more.
        let alone = (count == 1).then(|| exec.tally().counted(1));
        let ended = exec.run(command, &lines).await?;
        let result = match outcome(ended.status, &ended.stderr) {
            Outcome::Done => outcomes(&ended.stdout, deliveries.iter().map(|delivery| delivery.id).collect()),
            outcome if count == 1 => Ok(BatchOutcome::all(outcome)),
            Outcome::Retry { reason, .. } | Outcome::Reject { reason } => Err(reason.into()),
            other => Err(format!("{other:?}").into()),
        };
        if alone.is_none() && result.is_ok() {
            drop(exec.tally().counted(count));
        }
        result
    }
}

/// What the program says of each; nothing: it is done.
fn outcomes(stdout: &[u8], ids: HashSet<MessageId>) -> BatchResult {
    if stdout.len() as u64 >= SAID_BYTES_MAX {
        return Err(format!("the program says more than {} MiB", SAID_BYTES_MAX >> 20).into());
    }
    let mut outcomes = BatchOutcome::done();
    for (number, line) in stdout.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let unusable = |why: String| -> HandlerError { format!("line {} of the program: {why}", number + 1).into() };
        let said: Said = serde_json::from_slice(line).map_err(|error| unusable(error.to_string()))?;
        if !ids.contains(&said.id) {
            return Err(unusable(format!("there is no message {} in its batch", said.id)));
        }
        let id = said.id;
        outcomes.set(id, said.outcome().map_err(unusable)?);
    }
    Ok(outcomes)
}

impl Said {
    fn outcome(self) -> Result<Outcome, String> {
        let after = self.after.as_deref().map(duration::parse).transpose()?;
        let reason = self.reason.unwrap_or_else(|| "so said the program".to_owned());
        Ok(match (self.outcome, after) {
            (Word::Done, None) => Outcome::Done,
            (Word::Retry, after) => Outcome::Retry { after, reason },
            (Word::Snooze, Some(after)) => Outcome::snooze(after),
            (Word::Snooze, None) => return Err("snooze needs \"after\", such as \"30s\"".to_owned()),
            (Word::Unavailable, None) => Outcome::unavailable(reason),
            (Word::Reject, None) => Outcome::reject(reason),
            (_, Some(_)) => return Err("\"after\" is for retry and snooze".to_owned()),
        })
    }
}
