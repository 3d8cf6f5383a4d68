//! `doorbell audit`: the life of a message, and what else was done.

use clap::Args;
use doorbell::{
    MessageId,
    operate::{AuditEvent, AuditFilter, Moment, Operator},
};
use serde_json::{Value, json};

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
    timestamp::{self, rfc3339},
};

/// Show what happened to a message, or to all that a filter names, who did it and when
///
/// Reads the audit log, so it works after the message was archived or deleted. By default the log has what ended an
/// attempt or a message, and what people did; `select integration.set_audit_level('all')` adds publishing and claiming. The
/// life of one message is told from its beginning, anything else backwards, page by page. Exit code 3 when nothing was
/// written about it.
#[derive(Args, Debug)]
#[command(after_help = "\
The log is looked through backwards, 100,000 entries at a time; when a look ends before the page is full, how far it got and the \
--after that goes on are printed on stderr.

Examples:
  doorbell audit 42
  doorbell audit 42 --json | jq -r '.events[].action'
  doorbell audit --since 1h --action redriven
  doorbell audit --target billing --limit 100

JSON: {\"id\", \"events\": [{\"at\", \"action\", \"by\", \"role\", \"owner\", \"attempt\", \
\"old_status\", \"new_status\", \"details\"}]}; without an ID the events have \"id\" and \"target\", too, and beside them are \
\"next\" and \"looked_until\", as `doorbell list` has them.")]
pub(crate) struct Audit {
    /// The message
    #[arg(value_name = "ID")]
    id: Option<MessageId>,
    #[command(flatten)]
    filter: AuditArgs,
}

/// Which entries; what is not given matches all.
#[derive(Args, Debug)]
#[group(conflicts_with = "id", multiple = true)]
struct AuditArgs {
    /// About this target or its messages
    #[arg(short, long)]
    target: Option<String>,
    /// Of this action: completed, failed, redriven, paused, ...
    #[arg(long)]
    action: Option<String>,
    /// By this application_name
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// By this database role
    #[arg(long)]
    role: Option<String>,
    /// Of messages that this owner had
    #[arg(long)]
    owner: Option<String>,
    /// Written since then: 2026-03-01T02:10Z, 02:10 (UTC), or how long ago (30m)
    #[arg(long, value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Written before then
    #[arg(long, value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    until: Option<Moment>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Go on where a page ended, with the same filter
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

impl Audit {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let operator = global.database.broker().await?.operator();
        let Some(id) = self.id else { return self.filter.run(global, &operator).await };
        let events = operator.audit(id).await?;
        if global.json {
            let events: Vec<Value> = events.iter().map(event_json).collect();
            output::json(&json!({ "id": id, "events": events }))?;
        } else if events.is_empty() {
            eprintln!("the audit log says nothing about message {id}");
        } else {
            table(&events)?;
        }
        Ok(if events.is_empty() { Exit::NothingFound } else { Exit::Done })
    }
}

impl AuditArgs {
    async fn run(self, global: &Global, operator: &Operator) -> Result<Exit, Failure> {
        let filter = AuditFilter {
            id: None,
            target: self.target,
            action: self.action,
            by: self.by,
            role: self.role,
            owner: self.owner,
            since: self.since,
            until: self.until,
        };
        let page = operator.audit_list(&filter, self.limit, self.after.as_deref()).await?;
        let looked_until = page.looked_until.map(rfc3339);
        if global.json {
            let events = page.events.iter().map(|event| {
                let mut json = event_json(event);
                (json["id"], json["target"]) = (json!(event.id), json!(event.target));
                json
            });
            let events: Vec<Value> = events.collect();
            output::json(&json!({ "events": events, "next": page.next, "looked_until": looked_until }))?;
        } else {
            if page.events.is_empty() && page.next.is_none() {
                eprintln!("the audit log says nothing like that");
            } else if !page.events.is_empty() {
                list_table(&page.events)?;
            }
            if let Some(next) = &page.next {
                let looked = looked_until.map(|until| format!("looked back to {until}; to go on"));
                eprintln!("{}: --after '{next}'", looked.as_deref().unwrap_or("for more"));
            }
        }
        Ok(if page.events.is_empty() { Exit::NothingFound } else { Exit::Done })
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

/// Events of many messages as people read them.
fn list_table(events: &[AuditEvent]) -> std::io::Result<()> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|event| {
            vec![
                output::time(event.at),
                event.action.clone(),
                event.id.map(|id| id.to_string()).unwrap_or_default(),
                text(&event.target),
                format!("{} ({})", text(&event.by), text(&event.role)),
                text(&event.details),
            ]
        })
        .collect();
    output::table(&["AT", "ACTION", "ID", "TARGET", "BY", "DETAILS"], &rows)
}
