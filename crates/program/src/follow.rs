//! `doorbell follow`: watching messages go by.

use std::time::Duration;

use clap::Args;
use doorbell::operate::AuditEvent;
use serde_json::{Value, json};
use tracing::warn;

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    output,
    timestamp::rfc3339,
};

/// From how many events on there may be more at once.
const MANY: usize = 1000;

/// Follow new messages and what becomes of them, until Ctrl-C
///
/// Every new message is told once, even if its transaction commits late, and so is every change of status that the audit log
/// has: by default what ends an attempt or a message (completed, errored, failed, rescued, …) and what operators do. `select
/// integration.set_audit_level('all')` adds claims and the rest. Survives restarts of the database. Payloads are not shown.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell follow
  doorbell follow --target billing
  doorbell follow --json | jq -c 'select(.action == \"failed\")'

Lines: time, action, message, target, type, attempt, who, reason.
JSON lines: {\"at\", \"action\", \"id\", \"source\", \"target\", \"type\", \"attempt\", \"old_status\", \"new_status\", \
\"by\", \"owner\", \"details\"}.")]
pub(crate) struct Follow {
    /// Only of this target
    #[arg(short, long)]
    target: Option<String>,

    /// How often to look
    #[arg(long, value_name = "DURATION", default_value = "500ms", allow_hyphen_values = true,
        value_parser = duration::parse)]
    every: Duration,
}

impl Follow {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut follower = global.database.broker().await?.operator().follow(self.target.as_deref());
        let mut failing = false;
        let mut following = false;
        loop {
            let many = match follower.events().await {
                Ok(events) => {
                    failing = false;
                    events.iter().try_for_each(|event| print(event, global.json))?;
                    events.len() >= MANY
                }
                Err(error) if !error.is_transient() => return Err(error.into()),
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(?error, "the database does not answer; going on where it stopped when it does");
                    }
                    false
                }
            };
            if !failing && !std::mem::replace(&mut following, true) {
                eprintln!("following {}; Ctrl-C ends it", self.target.as_deref().unwrap_or("all targets"));
            }
            if !many {
                tokio::time::sleep(self.every.max(Duration::from_millis(10))).await;
            }
        }
    }
}

fn print(event: &AuditEvent, as_json: bool) -> std::io::Result<()> {
    let details: Value = event.details.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    if as_json {
        return output::json(&json!({
            "at": rfc3339(event.at), "action": event.action, "id": event.id, "source": event.source,
            "target": event.target, "type": event.record_type, "attempt": event.attempt,
            "old_status": event.old_status, "new_status": event.new_status, "by": event.by,
            "owner": event.owner, "details": details,
        }));
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let cells = [
        rfc3339(event.at),
        format!("{:<10}", event.action),
        number(event.id),
        text(&event.target),
        text(&event.record_type),
        number(event.attempt.map(i64::from)),
        text(&event.by),
        details["reason"].as_str().unwrap_or_default().to_owned(),
    ];
    output::line(cells.map(|cell| output::printable(&cell)).join("\t").trim_end())
}
