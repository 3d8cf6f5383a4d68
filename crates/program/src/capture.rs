//! `doorbell capture`: a table as a source.

use clap::Args;
use doorbell::operate::Capture as Wanted;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Publish every change of a table, in the transaction that makes it
///
/// Each is a message {\"table\", \"op\", \"new\", \"old\"} with the row's primary key as its ordering key; op is insert, update,
/// delete or truncate, and the end of the record type. Triggers do it, so whoever writes into the table needs nothing else. A
/// table that is captured already is captured so from now on. `doorbell captures` lists them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell capture orders warehouse
  doorbell capture shop.orders orders --type order --column status --column total
  doorbell capture orders audit --when '$.new.total > 1000'

JSON: {\"table\", \"target\", \"new\"}.")]
pub(crate) struct Capture {
    /// The table, as SQL names it
    table: String,

    /// Who gets its changes
    target: String,

    /// The application that they come from
    #[arg(long, value_name = "APP", default_value = "capture")]
    source: String,

    /// What record types begin with, before .insert, .update, .delete or .truncate [default: schema and table]
    #[arg(long = "type", value_name = "TYPE")]
    record_type: Option<String>,

    /// Only this column, and the primary key; may be repeated
    #[arg(long = "column", value_name = "NAME")]
    columns: Vec<String>,

    /// Only changes of which this jsonpath condition is true
    #[arg(long, value_name = "JSONPATH")]
    when: Option<String>,
}

impl Capture {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let Self { table, target, source, record_type, columns, when } = self;
        let wanted = Wanted { table, target, source: Some(source), record_type, columns, when };
        let new = global.database.broker().await?.operator().capture(&wanted).await?;
        if global.json {
            output::json(&json!({ "table": wanted.table, "target": wanted.target, "new": new }))?;
            return Ok(Exit::Done);
        }
        let (table, target) = (output::printable(&wanted.table), output::printable(&wanted.target));
        match new {
            true => eprintln!("{target} gets every change of {table} from now on"),
            false => eprintln!("{table} was captured; it is as you say now"),
        }
        Ok(Exit::Done)
    }
}
