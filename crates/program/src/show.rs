//! `doorbell show`: one message, all of it.

use clap::Args;
use doorbell::{
    MessageId,
    operate::{AuditEvent, MessageRow, SavedStep, StoredMessage},
};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::{
    Global, audit,
    exit::{Exit, Failure},
    output,
    timestamp::rfc3339,
};

/// How much of a step's output is shown where it is not JSON that is asked for.
const OUTPUT_CHARS: usize = 60;

/// Show all fields of a message, which steps of its handling are done, and its history
///
/// Looks into the archive, too. The payload is shown only with --data, and so is what steps have returned. Exit code 3 when there is no such message; what the
/// audit log still knows of it is then shown by `doorbell audit`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell show 42
  doorbell show 42 --data --json | jq .data

JSON: the fields of `doorbell list`, and \"processed_at\", \"lease_until\", \"expires_at\", \"max_retries\", \"ordering_key\", \
\"coalesce_key\", \"replaced\", \"put_off_until\" (while it may be replaced), \"dedup_key\", \"origin\", \"archived\", \"steps\" (\"name\", \"redrive_count\", \"attempt\", \"saved_at\", and \"output\" with --data), \"events\" \
(as `doorbell audit` has them), \"headers\" if there are any, and \"data\" with --data.")]
pub(crate) struct Show {
    /// The message
    #[arg(value_name = "ID")]
    id: MessageId,

    /// Show the payload, too
    #[arg(long)]
    data: bool,
}

impl Show {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let Some(message) = broker.operator().show(self.id, self.data).await? else {
            let why = format!("there is no message {}; what is known of it: doorbell audit {}", self.id, self.id);
            return Err(Failure::new(Exit::NothingFound, why));
        };
        let steps = broker.operator().steps(self.id, self.data).await?;
        let history = broker.operator().audit(self.id).await?;
        if global.json {
            output::json_text(as_json(&message, &steps, &history)?)?;
            return Ok(Exit::Done);
        }
        for (name, value) in fields(&message) {
            if let Some(value) = value {
                output::line(format_args!("{name:<14} {}", output::printable(&value)))?;
            }
        }
        if !steps.is_empty() {
            output::line("")?;
            table(&steps, self.data)?;
        }
        if !history.is_empty() {
            output::line("")?;
            audit::table(&history)?;
        }
        Ok(Exit::Done)
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    row: &'a MessageRow,
    processed_at: Option<String>,
    lease_until: Option<String>,
    expires_at: Option<String>,
    max_retries: Option<i32>,
    ordering_key: Option<&'a str>,
    /// Of one that may still be replaced.
    coalesce_key: Option<&'a str>,
    replaced: Option<u32>,
    put_off_until: Option<String>,
    dedup_key: Option<&'a str>,
    origin: Option<MessageId>,
    archived: bool,
    steps: Vec<Step<'a>>,
    events: Vec<Value>,
}

#[derive(Serialize)]
struct Step<'a> {
    name: &'a str,
    redrive_count: i32,
    attempt: i32,
    saved_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a RawValue>,
}

impl<'a> Step<'a> {
    fn of(step: &'a SavedStep) -> serde_json::Result<Self> {
        let SavedStep { name, redrive_count, attempt, saved_at, output, .. } = step;
        let output = output.as_deref().map(serde_json::from_str).transpose()?;
        Ok(Self { name, redrive_count: *redrive_count, attempt: *attempt, saved_at: rfc3339(*saved_at), output })
    }
}

/// Headers and payload are put in as the table has them, so that numbers keep all their digits.
fn as_json(message: &StoredMessage, steps: &[SavedStep], history: &[AuditEvent]) -> std::io::Result<String> {
    let waits = message.coalescing.as_ref();
    let mut text = serde_json::to_string(&Shown {
        row: &message.row,
        processed_at: message.processed_at.map(rfc3339),
        lease_until: message.lease_until.map(rfc3339),
        expires_at: message.expires_at.map(rfc3339),
        max_retries: message.max_retries,
        ordering_key: message.ordering_key.as_deref(),
        coalesce_key: waits.map(|waits| &*waits.key),
        replaced: waits.map(|waits| waits.replaced),
        put_off_until: waits.and_then(|waits| waits.put_off_until).map(rfc3339),
        dedup_key: message.dedup_key.as_deref(),
        origin: message.origin,
        archived: message.archived,
        steps: steps.iter().map(Step::of).collect::<Result<_, _>>()?,
        events: history.iter().map(audit::event_json).collect(),
    })?;
    for (name, json) in [("headers", &message.headers), ("data", &message.payload)] {
        if let Some(json) = json {
            text.pop();
            text.push_str(&format!(",\"{name}\":{json}}}"));
        }
    }
    Ok(text)
}

/// Everything but the history.
fn fields(message: &StoredMessage) -> Vec<(&'static str, Option<String>)> {
    let row = &message.row;
    let count = |count: i32| Some(count.to_string());
    let waits = || message.coalescing.as_ref();
    vec![
        ("id", Some(row.id.to_string())),
        ("status", Some(format!("{}{}", row.status, if message.archived { ", in the archive" } else { "" }))),
        ("source", Some(row.source.clone())),
        ("target", Some(row.target.clone())),
        ("type", Some(row.record_type.clone())),
        ("priority", count(row.priority)),
        ("created_at", Some(rfc3339(row.created_at))),
        ("updated_at", Some(rfc3339(row.updated_at))),
        ("available_at", row.available_at.map(rfc3339)),
        ("processed_at", message.processed_at.map(rfc3339)),
        ("attempt", count(row.attempt)),
        ("retry_count", count(row.retry_count)),
        ("max_retries", message.max_retries.and_then(count)),
        ("crash_count", count(row.crash_count)),
        ("redrive_count", count(row.redrive_count)),
        ("owner", row.owner.clone()),
        ("lease_until", message.lease_until.map(rfc3339)),
        ("expires_at", message.expires_at.map(rfc3339)),
        ("ordering_key", message.ordering_key.clone()),
        ("coalesce_key", waits().map(|waits| waits.key.clone())),
        ("replaced", waits().map(|waits| waits.replaced.to_string())),
        ("put_off_until", waits().and_then(|waits| waits.put_off_until).map(rfc3339)),
        ("dedup_key", message.dedup_key.clone()),
        ("origin", message.origin.map(|id| id.to_string())),
        ("reason", row.reason.clone()),
        ("headers", message.headers.clone()),
        ("data", message.payload.clone()),
    ]
}

/// Steps as people read them.
fn table(steps: &[SavedStep], with_outputs: bool) -> std::io::Result<()> {
    let row = |step: &SavedStep| {
        let mut row = vec![
            output::time(step.saved_at),
            step.name.clone(),
            step.attempt.to_string(),
            step.redrive_count.to_string(),
        ];
        row.extend(step.output.as_ref().filter(|_| with_outputs).map(|json| output::cut(json, OUTPUT_CHARS)));
        row
    };
    let headings = ["SAVED", "STEP", "ATTEMPT", "REDRIVES", "OUTPUT"];
    let rows: Vec<_> = steps.iter().map(row).collect();
    output::table(&headings[..headings.len() - usize::from(!with_outputs)], &rows)
}
