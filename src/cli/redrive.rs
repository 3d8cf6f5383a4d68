//! `doorbell redrive`: back to work.

use clap::Args;
use doorbell::{DeadLetters, MessageId};
use serde_json::json;

use super::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Put ended messages back: by id, or the dead letters that a filter names
///
/// Failed, cancelled and completed messages become pending again, with all their retries, and remember that they were
/// redriven. Prints the ids that were. Exit code 3 when none was: not there, or not ended.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell redrive 42
  doorbell redrive --target billing --reason 'connection refused%' --dry-run
  doorbell redrive --target billing --type order.placed --limit 10")]
pub(crate) struct Redrive {
    /// The messages
    #[arg(value_name = "ID", required_unless_present = "filter", conflicts_with = "filter")]
    ids: Vec<MessageId>,
    #[command(flatten)]
    filter: Filter,
    /// Only print the ids that would be
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Which dead letters.
#[derive(Args, Debug)]
#[group(id = "filter", multiple = true)]
struct Filter {
    /// Failed messages of this target
    #[arg(short, long)]
    target: Option<String>,
    /// Failed messages of this record type
    #[arg(long = "type", value_name = "TYPE")]
    record_type: Option<String>,
    /// Failed messages from this source
    #[arg(short, long)]
    source: Option<String>,
    /// Failed messages whose reason matches this SQL LIKE pattern
    #[arg(long, value_name = "PATTERN")]
    reason: Option<String>,
    /// At most so many, oldest failure first
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// All failed messages
    #[arg(long)]
    all: bool,
}

impl Redrive {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let Filter { target, record_type, source, reason, limit, all: _ } = self.filter;
        let ids = match self.ids.is_empty() {
            false => self.ids,
            true => broker.dead_letter_ids(&DeadLetters { target, record_type, source, reason, limit }).await?,
        };
        if self.dry_run {
            return print(global.json, "would_be_redriven", &ids, &ids);
        }
        let redriven = broker.redrive(&ids).await?;
        print(global.json, "redriven", &redriven, &ids)
    }
}

/// Says what happened to which of the messages asked for.
pub(super) fn print(as_json: bool, done: &str, changed: &[MessageId], asked: &[MessageId]) -> Result<Exit, Failure> {
    if as_json {
        output::json(&json!({ done: changed }))?;
    } else {
        changed.iter().try_for_each(output::line)?;
        for id in asked.iter().filter(|id| !changed.contains(id)) {
            eprintln!("message {id} was not {done}: it does not exist or its status does not allow it");
        }
    }
    Ok(if changed.is_empty() { Exit::NothingFound } else { Exit::Done })
}
