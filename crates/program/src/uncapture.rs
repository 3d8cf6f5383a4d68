//! `doorbell uncapture`: a table is no source any more.

use clap::Args;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Publish no more changes of a table
///
/// What was published stays. Exit code 3 when it was not captured.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell uncapture orders

JSON: {\"table\", \"captured\": false}.")]
pub(crate) struct Uncapture {
    /// The table, as SQL names it
    table: String,
}

impl Uncapture {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let was = global.database.broker().await?.operator().uncapture(&self.table).await?;
        let table = output::printable(&self.table);
        if !was {
            eprintln!("{table} is not captured; what is: doorbell captures");
            return Ok(Exit::NothingFound);
        }
        if global.json {
            output::json(&json!({ "table": self.table, "captured": false }))?;
        } else {
            eprintln!("changes of {table} are not published any more");
        }
        Ok(Exit::Done)
    }
}
