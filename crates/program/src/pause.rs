//! `doorbell pause`: hold everything.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    names, output,
};

/// Stop the handling of a target's messages, for all consumers and across restarts
///
/// Messages can still be published and wait; those being handled are finished.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell pause billing --reason 'ledger maintenance'
  doorbell pause billing --for 30m
  doorbell resume billing

JSON: {\"target\", \"paused\": true}.")]
pub(crate) struct Pause {
    /// The target
    target: String,

    /// Shown to whoever wonders why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// End by itself after this long; without it, when it is resumed
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    for_: Option<Duration>,

    /// It may be one that nothing knows yet
    #[arg(long)]
    new: bool,
}

impl Pause {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        names::must_be_known(&broker, &self.target, self.new).await?;
        broker.operator().pause(&self.target, self.reason.as_deref(), self.for_).await?;
        if global.json {
            output::json(&json!({ "target": self.target, "paused": true }))?;
        } else {
            let target = output::printable(&self.target);
            let ends = self.for_.map(|for_| format!(" for {}", duration::coarse(for_))).unwrap_or_default();
            eprintln!("{target} is paused{ends}; go on with: doorbell resume {}", shell_words::quote(&target));
        }
        Ok(Exit::Done)
    }
}
