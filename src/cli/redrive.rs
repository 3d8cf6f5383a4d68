//! `doorbell redrive`: back to work.

use clap::Args;
use doorbell::MessageId;
use serde_json::json;

use super::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Put ended messages back: failed, cancelled or completed ones become pending again, with all their retries
///
/// Prints the ids that were. Exit code 3 when none was: not there, or not ended.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell redrive 42
  psql -Atc \"select id from integration.data_staging where status = 'failed'\" | xargs doorbell redrive")]
pub(crate) struct Redrive {
    /// The messages
    #[arg(required = true, value_name = "ID")]
    ids: Vec<MessageId>,
}

impl Redrive {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let redriven = broker.redrive(&self.ids).await?;
        print(global.json, "redriven", &redriven, &self.ids)
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
