//! `doorbell extracts`: what is read, and how far.

use clap::Args;
use doorbell::operate::ExtractRow;
use serde_json::{Value, json};

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 8] = ["EXTRACT", "OF", "TARGET", "TYPE", "WHEN", "PLACE", "PUBLISHED", "STATE"];

/// List the extracts: what each reads, and how far it has come
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell extracts
  doorbell extracts --json | jq '.extracts[] | select(.last_error != null)'

JSON: {\"extracts\": [{\"extract\", \"table\", \"query\", \"foreign\", \"target\", \"source\", \"type\", \"key_columns\", \"watermark\", \
\"every_seconds\", \"place\", \"published\", \"skipped\", \"looked_at\", \"ended_at\", \"last_error\", \"paused_by\"}]}.")]
pub(crate) struct Extracts {}

impl Extracts {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let extracts = global.database.broker().await?.operator().extracts().await?;
        if global.json {
            output::json(&json!({ "extracts": extracts.iter().map(extract_json).collect::<Vec<_>>() }))?;
            return Ok(Exit::Done);
        }
        if extracts.is_empty() {
            eprintln!("there are no extracts");
        }
        output::table(&HEADINGS, &extracts.iter().map(cells).collect::<Vec<_>>())?;
        Ok(Exit::Done)
    }
}

fn extract_json(row: &ExtractRow) -> Value {
    json!({
        "extract": row.name, "table": row.table, "query": row.query, "foreign": row.is_foreign, "target": row.target,
        "source": row.source, "type": row.record_type, "key_columns": row.key, "watermark": row.watermark, "every_seconds": row.every_seconds,
        "place": row.place, "published": row.published, "skipped": row.skipped,
        "looked_at": row.looked_at.map(rfc3339), "ended_at": row.ended_at.map(rfc3339), "last_error": row.last_error,
        "paused_by": row.paused_by,
    })
}

fn cells(row: &ExtractRow) -> Vec<String> {
    let every = row.every_seconds.map(|seconds| match seconds {
        ..120.0 => format!("every {seconds}s"),
        _ => format!("every {}", duration::coarse(std::time::Duration::from_secs_f64(seconds))),
    });
    let state = match row {
        ExtractRow { paused_by: Some(by), .. } => format!("paused by {by}"),
        ExtractRow { last_error: Some(error), .. } => format!("fails: {}", output::cut(error, 60)),
        ExtractRow { ended_at: Some(_), .. } => "ended".to_owned(),
        ExtractRow { skipped, .. } if *skipped > 0 => format!("{skipped} rows skipped"),
        _ => "-".to_owned(),
    };
    let of = row.table.clone().unwrap_or_else(|| "a query".to_owned());
    vec![
        row.name.clone(),
        of + if row.is_foreign { ", elsewhere" } else { "" },
        row.target.clone(),
        format!("{}.read", row.record_type),
        every.unwrap_or_else(|| "once".to_owned()),
        row.place.clone().unwrap_or_else(|| "-".to_owned()),
        row.published.to_string(),
        state,
    ]
}
