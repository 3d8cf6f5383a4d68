//! `doorbell captures`: which tables are sources.

use clap::Args;
use doorbell::operate::CaptureRow;
use serde_json::{Value, json};

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 6] = ["TABLE", "TARGET", "TYPE", "COLUMNS", "WHEN", "STATE"];

/// List the tables whose changes are published
///
/// STATE is off when a trigger is gone or disabled, or the primary key is another: capture it again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell captures

JSON: {\"captures\": [{\"table\", \"target\", \"source\", \"type\", \"columns\", \"when\", \"is_on\", \"captured_at\"}]}.")]
pub(crate) struct Captures {}

impl Captures {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let captures = global.database.broker().await?.operator().captures().await?;
        if global.json {
            output::json(&json!({ "captures": captures.iter().map(capture_json).collect::<Vec<_>>() }))?;
            return Ok(Exit::Done);
        }
        if captures.is_empty() {
            eprintln!("no table is captured");
        }
        output::table(&HEADINGS, &captures.iter().map(cells).collect::<Vec<_>>())?;
        Ok(Exit::Done)
    }
}

fn capture_json(row: &CaptureRow) -> Value {
    json!({
        "table": row.table, "target": row.target, "source": row.source, "type": row.record_type,
        "columns": row.columns, "when": row.when, "is_on": row.is_on, "captured_at": rfc3339(row.captured_at),
    })
}

fn cells(row: &CaptureRow) -> Vec<String> {
    let columns = if row.columns.is_empty() { "all".to_owned() } else { row.columns.join(", ") };
    vec![
        row.table.clone(),
        row.target.clone(),
        format!("{}.*", row.record_type),
        columns,
        row.when.clone().unwrap_or_else(|| "always".to_owned()),
        if row.is_on { "-" } else { "off" }.to_owned(),
    ]
}
