//! Programs that live, and are given batches of messages.

use std::{
    collections::HashSet,
    fmt::Display,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use doorbell::{BatchHandler, BatchOutcome, BatchResult, Delivery, HandlerError, MessageId, Outcome};
use futures::future::join_all;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tracing::warn;

use super::{
    child::{Broken, Child},
    started::{Starter, outcome},
};
use crate::{duration, line::Line};

/// One child for each batch that is handled at the same time, started when there is a batch for it.
pub(super) struct Children {
    starter: Starter,
    /// The most messages of a batch, which the program is told.
    batch: usize,
    target: String,
    /// Those that wait for a batch.
    idle: Mutex<Vec<Child>>,
}

/// A line of the program, as documented by `consume --help`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    id: MessageId,
    outcome: Word,
    reason: Option<String>,
    after: Option<String>,
    /// Of a request.
    #[serde(default, deserialize_with = "something")]
    reply: Option<Box<RawValue>>,
}

/// A null that is said is one.
fn something<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(deserializer).map(Some)
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

/// The consumer's part; who has started it waits for their ends.
pub(super) struct Several(pub(super) Arc<Children>);

#[async_trait]
impl BatchHandler for Several {
    async fn handle(&self, deliveries: Vec<Delivery>) -> BatchResult {
        self.0.handle(deliveries).await
    }
}

impl Children {
    pub(super) fn new(starter: Starter, target: &str, batch: usize) -> Self {
        Self { starter, batch, target: target.to_owned(), idle: Mutex::default() }
    }

    /// Gives a batch to one of them. Dropped, it kills the program with all its children.
    async fn handle(&self, deliveries: Vec<Delivery>) -> BatchResult {
        let (mut lines, count) = (Vec::new(), deliveries.len());
        for delivery in &deliveries {
            serde_json::to_writer(&mut lines, &Line::of_delivery(delivery)?)?;
            lines.push(b'\n');
        }
        // Of a batch that fails as a whole, each is handled once more.
        let tally = &self.starter.tally;
        let alone = (count == 1).then(|| tally.counted(1));
        let result = match self.said(&lines, count).await {
            Ok(said) => outcomes(&said, &deliveries.iter().map(|delivery| delivery.id).collect()),
            Err(Outcome::Done) => Err("the program ended before it had ended its batch by printing its mark".into()),
            Err(outcome) if count == 1 => Ok(BatchOutcome::all(outcome)),
            Err(Outcome::Retry { reason, .. } | Outcome::Reject { reason }) => Err(reason.into()),
            Err(other) => Err(format!("{other:?}").into()),
        };
        if alone.is_none() && result.is_ok() {
            drop(tally.counted(count));
        }
        result
    }

    /// After the consumer has ended: tells all that wait to end, and waits for that.
    pub(super) async fn end_within(&self, limit: Duration) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        join_all(idle.into_iter().map(|child| child.end_within(limit))).await;
    }

    async fn child(&self) -> Result<Child, HandlerError> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut child) = idle else { break };
            if child.is_there() {
                return Ok(child);
            }
        }
        let mut command = self.starter.program.command();
        command.env("DOORBELL_BATCH", self.batch.to_string()).env("DOORBELL_TARGET", &self.target);
        command.stdout(Stdio::piped());
        Child::of(self.starter.start(command).await?).ok_or_else(|| "the program has no pipes".into())
    }

    /// What the program says of a batch, lines. One that is dropped here, or has broken off, is killed with all its children.
    async fn said(&self, lines: &[u8], messages: usize) -> Result<Vec<u8>, Outcome> {
        let broken = |why: &dyn Display| Outcome::retry(why.to_string());
        // Of a message alone it is the reason.
        let log = |why: &dyn Display| match messages {
            1 => {}
            _ => warn!(%why, messages, "the program has failed a batch"),
        };
        loop {
            let mut busy = Busy(Some(self.child().await.map_err(|error| broken(&error))?));
            let Some(child) = &mut busy.0 else { return Err(broken(&"there is no program")) };
            let is_used = !child.knows_no_mark();
            match child.handle(lines).await {
                Ok(said) => {
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(busy.0.take());
                    return Ok(said);
                }
                Err(Broken::Why(why)) => {
                    log(&why);
                    return Err(broken(&why));
                }
                Err(Broken::Ended { silent }) => {
                    let Some(child) = busy.0.take() else { return Err(broken(&"there is no program")) };
                    let (status, stderr) = child.end().await.map_err(|error| broken(&error))?;
                    // It was about to end anyway, after its last batch: the next one is another's.
                    if !(status.success() && silent && is_used) {
                        log(&status);
                        return Err(outcome(status, &stderr));
                    }
                }
            }
        }
    }
}

/// One that has a batch.
struct Busy(Option<Child>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.as_ref().is_some_and(Child::knows_no_mark) {
            warn!(
                "the program is killed; it has never ended a batch by printing its mark, see doorbell consume --help"
            );
        }
    }
}

/// What the program says of each; nothing: it is done.
fn outcomes(said: &[u8], ids: &HashSet<MessageId>) -> BatchResult {
    let mut outcomes = BatchOutcome::done();
    for (number, line) in said.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let unusable = |why: String| -> HandlerError { format!("line {} of the program: {why}", number + 1).into() };
        let mut said: Said = serde_json::from_slice(line).map_err(|error| unusable(error.to_string()))?;
        if !ids.contains(&said.id) {
            return Err(unusable(format!("there is no message {} in its batch", said.id)));
        }
        let (id, reply) = (said.id, said.reply.take());
        match (said.outcome().map_err(unusable)?, reply) {
            (Outcome::Done, Some(reply)) => outcomes.reply(id, &reply)?,
            (outcome, None) => outcomes.set(id, outcome),
            (_, Some(_)) => return Err(unusable("\"reply\" is for done".to_owned())),
        }
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
