//! `doorbell audit`: the life of a message.

use clap::Args;
use doorbell::{MessageId, operate::AuditEvent};
use serde_json::{Value, json};

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
    timestamp::rfc3339,
};

/// Show what happened to a message, who did it and when
///
/// Reads the audit log, so it works after the message was archived or deleted. By default the log has what ended an
/// attempt or a message; `select integration.set_audit_level('all')` adds publishing and claiming. Exit code 3 when
/// nothing was written about the message.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell audit 42
  doorbell audit 42 --json | jq -r '.events[].action'

JSON: {\"id\", \"events\": [{\"at\", \"action\", \"by\", \"role\", \"owner\", \"attempt\", \
\"old_status\", \"new_status\", \"details\"}]}.")]
pub(crate) struct Audit {
    /// The message
    #[arg(value_name = "ID")]
    id: MessageId,
}

impl Audit {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let events = global.database.broker().await?.operator().audit(self.id).await?;
        if global.json {
            let events: Vec<Value> = events.iter().map(event_json).collect();
            output::json(&json!({ "id": self.id, "events": events }))?;
        } else if events.is_empty() {
            eprintln!("the audit log says nothing about message {}", self.id);
        } else {
            table(&events)?;
        }
        Ok(if events.is_empty() { Exit::NothingFound } else { Exit::Done })
    }
}

/// An event as `--json` has it.
pub(crate) fn event_json(event: &AuditEvent) -> Value {
    json!({
        "at": rfc3339(event.at), "action": event.action, "by": event.by,
        "role": event.role, "owner": event.owner, "attempt": event.attempt,
        "old_status": event.old_status, "new_status": event.new_status,
        "details": event.details.as_deref().and_then(|details| serde_json::from_str::<Value>(details).ok()),
    })
}

/// Events as people read them.
pub(crate) fn table(events: &[AuditEvent]) -> std::io::Result<()> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|event| {
            vec![
                output::time(event.at),
                event.action.clone(),
                event.attempt.map(|attempt| attempt.to_string()).unwrap_or_default(),
                format!("{} -> {}", text(&event.old_status), text(&event.new_status)),
                format!("{} ({})", text(&event.by), text(&event.role)),
                text(&event.owner),
                text(&event.details),
            ]
        })
        .collect();
    output::table(&["AT", "ACTION", "ATTEMPT", "STATUS", "BY", "OWNER", "DETAILS"], &rows)
}
