//! `doorbell resume`: the end of a pause.

use clap::Args;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    names, output,
};

/// Let a paused target's messages be handled again
///
/// Fine when it was not paused.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell resume billing

JSON: {\"target\", \"paused\": false, \"was_paused\"}.")]
pub(crate) struct Resume {
    /// The target
    target: String,
}

impl Resume {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let was_paused = broker.operator().resume(&self.target).await?;
        if global.json {
            output::json(&json!({ "target": self.target, "paused": false, "was_paused": was_paused }))?;
        } else if was_paused {
            eprintln!("{} is handled again", self.target);
        } else if !names::is_unknown(&broker, Some(&self.target)).await? {
            eprintln!("{} was not paused", self.target);
        }
        Ok(Exit::Done)
    }
}
