//! `doorbell show`: one message, all of it.

use clap::Args;
use doorbell::{MessageId, StoredMessage};
use serde_json::{Value, json};

use super::{
    Global, audit,
    exit::{Exit, Failure},
    list::message_json,
    output,
    timestamp::rfc3339,
};

/// Show all fields of a message and its history
///
/// Looks into the archive, too. The payload is shown only with --data. Exit code 3 when there is no such message; what the
/// audit log still knows of it is then shown by `doorbell audit`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell show 42
  doorbell show 42 --data --json | jq .data

JSON: the fields of `doorbell list`, and \"processed_at\", \"lease_until\", \"max_retries\", \"headers\", \
\"ordering_key\", \"dedup_key\", \"archived\", \"events\" (as `doorbell audit` has them), and \"data\" with --data.")]
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
        let Some(message) = broker.show(self.id, self.data).await? else {
            let why = format!("there is no message {}; what is known of it: doorbell audit {}", self.id, self.id);
            return Err(Failure::new(Exit::NothingFound, why));
        };
        let history = broker.history(self.id).await?;
        if global.json {
            let mut all = fields(&message)?;
            all["events"] = history.iter().map(audit::event_json).collect();
            output::json(&all)?;
            return Ok(Exit::Done);
        }
        let Value::Object(fields) = fields(&message)? else { return Ok(Exit::Failed) };
        for (name, value) in fields {
            match value {
                Value::Null => {}
                Value::String(text) => output::line(format_args!("{name:<14} {}", output::printable(&text)))?,
                other => output::line(format_args!("{name:<14} {other}"))?,
            }
        }
        if !history.is_empty() {
            output::line("")?;
            audit::table(&history)?;
        }
        Ok(Exit::Done)
    }
}

/// Everything but the history. Payload and headers are what the table has: numbers keep all their digits.
fn fields(message: &StoredMessage) -> Result<Value, Failure> {
    let mut all = message_json(&message.row);
    let parsed = |json: &Option<String>| match json {
        Some(json) => serde_json::from_str(json).unwrap_or_else(|_| Value::String(json.clone())),
        None => Value::Null,
    };
    let more = json!({
        "processed_at": message.processed_at.map(rfc3339), "lease_until": message.lease_until.map(rfc3339),
        "max_retries": message.max_retries, "headers": parsed(&message.headers),
        "ordering_key": message.ordering_key, "dedup_key": message.dedup_key, "archived": message.archived,
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
        if message.payload.is_some() {
            all.insert("data".to_owned(), parsed(&message.payload));
        }
    }
    Ok(all)
}
