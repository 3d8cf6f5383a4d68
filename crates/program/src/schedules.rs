//! `doorbell schedules`: what comes when.

use clap::Args;
use doorbell::operate::ScheduleRow;
use serde_json::{Value, json};

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 8] = ["SCHEDULE", "TARGET", "TYPE", "WHEN", "NEXT", "LAST", "FIRED", "STATE"];

/// List the schedules: what each publishes, when it did and when it will
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell schedules
  doorbell schedules --json | jq '.schedules[] | select(.paused_by != null) | .name'

JSON: {\"schedules\": [{\"name\", \"target\", \"type\", \"cron\", \"every_seconds\", \"zone\", \"next_at\", \"last_at\", \"last_id\", \
\"fired\", \"paused_by\"}]}.")]
pub(crate) struct Schedules {}

impl Schedules {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let schedules = global.database.broker().await?.operator().schedules().await?;
        if global.json {
            output::json(&json!({ "schedules": schedules.iter().map(schedule_json).collect::<Vec<_>>() }))?;
            return Ok(Exit::Done);
        }
        if schedules.is_empty() {
            eprintln!("there are no schedules");
        }
        output::table(&HEADINGS, &schedules.iter().map(cells).collect::<Vec<_>>())?;
        Ok(Exit::Done)
    }
}

fn schedule_json(row: &ScheduleRow) -> Value {
    json!({
        "name": row.name, "target": row.target, "type": row.record_type, "cron": row.cron,
        "every_seconds": row.every_seconds, "zone": row.zone, "next_at": row.next_at.map(rfc3339),
        "last_at": row.last_at.map(rfc3339), "last_id": row.last_id, "fired": row.fired, "paused_by": row.paused_by,
    })
}

fn cells(row: &ScheduleRow) -> Vec<String> {
    let every = row
        .every_seconds
        .map(|seconds| format!("every {}", duration::coarse(std::time::Duration::from_secs_f64(seconds))));
    let when = row.cron.as_ref().map(|cron| format!("{cron} {}", row.zone)).or(every);
    vec![
        row.name.clone(),
        row.target.clone(),
        row.record_type.clone(),
        when.unwrap_or_default(),
        row.next_at.map_or_else(|| "never".to_owned(), output::time),
        row.last_at.map_or_else(|| "-".to_owned(), output::time),
        row.fired.to_string(),
        row.paused_by.as_ref().map_or_else(|| "-".to_owned(), |by| format!("paused by {by}")),
    ]
}
