//! `doorbell pause`: hold everything.

use clap::Args;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Stop the handling of a target's messages, for all consumers and across restarts
///
/// Messages can still be published and wait; those being handled are finished.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell pause billing --reason 'ledger maintenance'
  doorbell resume billing

JSON: {\"target\", \"paused\": true}.")]
pub(crate) struct Pause {
    /// The target
    target: String,

    /// Shown to whoever wonders why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Pause {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        broker.operator().pause(&self.target, self.reason.as_deref()).await?;
        if global.json {
            output::json(&json!({ "target": self.target, "paused": true }))?;
        } else {
            eprintln!("{} is paused; go on with: doorbell resume {}", self.target, self.target);
        }
        Ok(Exit::Done)
    }
}
