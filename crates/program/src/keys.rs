//! `doorbell keys`: what waits for what, where order was asked for.

use clap::Args;
use doorbell::operate::KeyRow;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    names, output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 6] = ["KEY", "STATE", "MESSAGE", "WAITING", "SINCE", "REASON"];

/// Show the ordering keys of a target of which messages wait, and what for
///
/// A key is free, busy (a message of it is being handled), waits (for one that is tried again, or runs alone) or is blocked
/// (by one that failed for good). MESSAGE is the one that the others wait for. Exit code 3 when there is none.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell keys billing
  doorbell keys billing --blocked
  doorbell unblock billing customer-7 --redrive

JSON: {\"keys\": [{\"target\", \"key\", \"state\", \"id\", \"waiting\", \"since\", \"reason\"}]}.")]
pub(crate) struct Keys {
    /// The target
    target: String,

    /// Only those that are blocked
    #[arg(long)]
    blocked: bool,

    /// Those after this one, by name
    #[arg(long, value_name = "KEY", conflicts_with = "blocked")]
    after: Option<String>,

    /// At most so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl Keys {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let operator = broker.operator();
        let rows = match self.blocked {
            true => operator.blocked_keys(Some(&self.target), self.limit).await?,
            false => operator.keys(&self.target, self.limit, self.after.as_deref()).await?,
        };
        if global.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| {
                    json!({ "target": row.target, "key": row.key, "state": row.state.to_string(), "id": row.message,
                            "waiting": row.waiting, "since": row.since.map(rfc3339), "reason": row.reason })
                })
                .collect();
            output::json(&json!({ "keys": rows }))?;
        } else if !rows.is_empty() {
            output::table(&HEADINGS, &rows.iter().map(cells).collect::<Vec<_>>())?;
        }
        if rows.is_empty() {
            names::is_unknown(&broker, Some(&self.target)).await?;
            eprintln!("{}", if self.blocked { "no key is blocked" } else { "no message with an ordering key waits" });
            return Ok(Exit::NothingFound);
        }
        Ok(Exit::Done)
    }
}

fn cells(row: &KeyRow) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        row.key.clone(),
        row.state.to_string(),
        or_none(row.message.map(|id| id.to_string())),
        row.waiting.to_string(),
        or_none(row.since.map(output::time)),
        row.reason.clone().unwrap_or_default(),
    ]
}
