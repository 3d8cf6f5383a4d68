//! `doorbell consumers`: who is listening.

use std::time::Duration;

use clap::Args;
use doorbell::ConsumerRow;
use serde_json::{Value, json};

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 8] =
    ["INCARNATION", "TARGETS", "APPLICATION", "VERSION", "STARTED", "PROCESSING", "LAST BEAT", "STATE"];

/// List the processes that consume, oldest first
///
/// TARGETS says what each handles: the target, how many messages at the same time, and the record types where it does not
/// take all. PROCESSING is what it holds now. A process that no longer renews its lease is shown as lost until its messages
/// were rescued. Consumers in plain SQL are not registered and are not listed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell consumers
  doorbell consumers --json | jq -r '.consumers[] | select(.alive | not) | .host'

JSON: {\"consumers\": [{\"incarnation\", \"host\", \"pid\", \"application\", \"version\", \"targets\": \
{TARGET: {\"types\", \"capacity\"}}, \"started_at\", \"beat_at\", \"beat_age_seconds\", \"processing\", \"alive\"}]}.")]
pub(crate) struct Consumers {}

impl Consumers {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let consumers = broker.consumers().await?;
        if global.json {
            let consumers: Vec<Value> = consumers.iter().map(consumer_json).collect();
            output::json(&json!({ "consumers": consumers }))?;
            return Ok(Exit::Done);
        }
        if consumers.is_empty() {
            eprintln!("nobody is consuming");
        }
        output::table(&HEADINGS, &consumers.iter().map(cells).collect::<Vec<_>>())?;
        Ok(Exit::Done)
    }
}

/// A consumer as `--json` has it.
pub(crate) fn consumer_json(consumer: &ConsumerRow) -> Value {
    json!({
        "incarnation": consumer.incarnation, "host": consumer.host, "pid": consumer.pid,
        "application": consumer.application, "version": consumer.version, "targets": targets(&consumer.targets),
        "started_at": rfc3339(consumer.started_at), "beat_at": rfc3339(consumer.beat_at),
        "beat_age_seconds": consumer.beat_age_seconds, "processing": consumer.processing, "alive": consumer.alive,
    })
}

fn cells(consumer: &ConsumerRow) -> Vec<String> {
    vec![
        consumer.incarnation.clone(),
        accepted(consumer),
        consumer.application.clone(),
        consumer.version.clone(),
        rfc3339(consumer.started_at),
        consumer.processing.to_string(),
        beat_age(consumer),
        if consumer.alive { "alive" } else { "lost" }.to_owned(),
    ]
}

/// How long ago its last beat was.
pub(crate) fn beat_age(consumer: &ConsumerRow) -> String {
    duration::coarse(Duration::try_from_secs_f64(consumer.beat_age_seconds).unwrap_or_default())
}

/// What it handles: `billing (8), mail (2: order.placed, order.paid)`.
pub(crate) fn accepted(consumer: &ConsumerRow) -> String {
    let Value::Object(targets) = targets(&consumer.targets) else { return String::new() };
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
