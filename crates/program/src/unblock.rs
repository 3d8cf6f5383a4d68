//! `doorbell unblock`: a key goes on.

use clap::Args;
use doorbell::operate::Unblock as How;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    names, output,
};

/// Let an ordering key go on that a message blocks which failed for good
///
/// Prints the id of that message. --redrive tries it again, before all that waits behind it; --cancel goes on without it.
/// Exit code 3 when the key is not blocked.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell keys billing --blocked
  doorbell unblock billing customer-7 --redrive --dry-run
  doorbell unblock billing customer-7 --redrive
  doorbell unblock billing customer-7 --cancel

JSON: {\"unblocked\": [ID, …]}, or \"would_be_unblocked\" with --dry-run.")]
pub(crate) struct Unblock {
    /// The target
    target: String,

    /// The key
    key: String,

    /// Try the message again
    #[arg(long, required_unless_present = "cancel", conflicts_with = "cancel")]
    redrive: bool,

    /// Go on without the message
    #[arg(long)]
    cancel: bool,

    /// Only say which message it is
    #[arg(long)]
    dry_run: bool,
}

impl Unblock {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let operator = broker.operator();
        let ids: Vec<i64> = if self.dry_run {
            let blocked = operator.blocked_keys(Some(&self.target), u32::MAX).await?;
            blocked.iter().filter(|row| row.key == self.key).filter_map(|row| row.message).collect()
        } else {
            operator.unblock(&self.target, &self.key, if self.redrive { How::Redrive } else { How::Cancel }).await?
        };
        let done = if self.dry_run { "would_be_unblocked" } else { "unblocked" };
        if global.json {
            output::json(&json!({ done: ids }))?;
        } else {
            ids.iter().try_for_each(output::line)?;
        }
        if ids.is_empty() {
            names::is_unknown(&broker, Some(&self.target)).await?;
            eprintln!("key {} of {} is not blocked", output::printable(&self.key), output::printable(&self.target));
            return Ok(Exit::NothingFound);
        }
        Ok(Exit::Done)
    }
}
