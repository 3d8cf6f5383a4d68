//! `doorbell processes`: the processes that consume.

use std::time::Duration;

use clap::Args;
use doorbell::operate::ProcessRow;
use serde_json::{Value, json};

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 8] =
    ["OWNER", "TARGETS", "APPLICATION", "VERSION", "STARTED", "PROCESSING", "LAST BEAT", "STATE"];

/// List the processes that consume, oldest first
///
/// TARGETS says what each handles: the target, how many messages at the same time, and the record types where it does not
/// take all. PROCESSING is what it holds now. A process that no longer renews its lease is shown as lost until its messages
/// were rescued. Consumers in plain SQL are not registered and are not listed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell processes
  doorbell processes --json | jq -r '.processes[] | select(.alive | not) | .host'

JSON: {\"processes\": [{\"owner\", \"host\", \"pid\", \"application\", \"version\", \"targets\": \
{TARGET: {\"types\", \"capacity\"}}, \"started_at\", \"beat_at\", \"beat_age_seconds\", \"processing\", \"alive\"}]}.")]
pub(crate) struct Processes {}

impl Processes {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let processes = broker.operator().processes().await?;
        if global.json {
            let processes: Vec<Value> = processes.iter().map(process_json).collect();
            output::json(&json!({ "processes": processes }))?;
            return Ok(Exit::Done);
        }
        if processes.is_empty() {
            eprintln!("nobody is consuming");
        }
        output::table(&HEADINGS, &processes.iter().map(cells).collect::<Vec<_>>())?;
        Ok(Exit::Done)
    }
}

/// A process as `--json` has it.
pub(crate) fn process_json(process: &ProcessRow) -> Value {
    json!({
        "owner": process.owner, "host": process.host, "pid": process.pid,
        "application": process.application, "version": process.version, "targets": targets(&process.targets),
        "started_at": rfc3339(process.started_at), "beat_at": rfc3339(process.beat_at),
        "beat_age_seconds": process.beat_age_seconds, "processing": process.processing, "alive": process.alive,
    })
}

fn cells(process: &ProcessRow) -> Vec<String> {
    vec![
        process.owner.clone(),
        accepted(process),
        process.application.clone(),
        process.version.clone(),
        output::time(process.started_at),
        process.processing.to_string(),
        beat_age(process),
        if process.alive { "alive" } else { "lost" }.to_owned(),
    ]
}

/// How long ago its last beat was.
pub(crate) fn beat_age(process: &ProcessRow) -> String {
    duration::coarse(Duration::try_from_secs_f64(process.beat_age_seconds).unwrap_or_default())
}

/// What it handles: `billing (8), mail (2: order.placed, order.paid)`.
pub(crate) fn accepted(process: &ProcessRow) -> String {
    let Value::Object(targets) = targets(&process.targets) else { return String::new() };
    let one = |(target, accepts): (&String, &Value)| {
        let types = accepts["types"].as_array().map(|types| types.iter().filter_map(Value::as_str).collect::<Vec<_>>());
        let types = types.map_or_else(String::new, |types| format!(": {}", types.join(", ")));
        format!("{target} ({}{types})", accepts["capacity"])
    };
    targets.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn targets(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}
