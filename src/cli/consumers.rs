//! `doorbell consumers`: who is listening.

use clap::Args;
use serde_json::{Value, json};

use super::{
    Global,
    exit::{Exit, Failure},
    output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 6] = ["INCARNATION", "TARGETS", "APPLICATION", "VERSION", "STARTED", "STATE"];

/// List the processes that consume, oldest first
///
/// A process that no longer renews its lease is shown as lost until its messages were rescued.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  doorbell consumers\n  doorbell consumers --json | jq -r '.consumers[].host'")]
pub(crate) struct Consumers {}

impl Consumers {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let consumers = broker.consumers().await?;
        if global.json {
            let consumers: Vec<Value> = consumers
                .iter()
                .map(|consumer| {
                    json!({
                        "incarnation": consumer.incarnation,
                        "host": consumer.host,
                        "pid": consumer.pid,
                        "application": consumer.application,
                        "version": consumer.version,
                        "targets": targets(&consumer.targets),
                        "started_at": rfc3339(consumer.started_at),
                        "beat_at": rfc3339(consumer.beat_at),
                        "alive": consumer.alive,
                    })
                })
                .collect();
            output::json(&json!({ "consumers": consumers }))?;
            return Ok(Exit::Done);
        }
        if consumers.is_empty() {
            eprintln!("nobody is consuming");
        }
        let rows: Vec<Vec<String>> = consumers
            .iter()
            .map(|consumer| {
                let names = match targets(&consumer.targets) {
                    Value::Object(targets) => targets.keys().cloned().collect::<Vec<_>>().join(", "),
                    _ => String::new(),
                };
                vec![
                    consumer.incarnation.clone(),
                    names,
                    consumer.application.clone(),
                    consumer.version.clone(),
                    rfc3339(consumer.started_at),
                    if consumer.alive { "alive" } else { "lost" }.to_owned(),
                ]
            })
            .collect();
        output::table(&HEADINGS, &rows)?;
        Ok(Exit::Done)
    }
}

fn targets(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}
