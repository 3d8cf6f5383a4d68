//! `doorbell topics`: who gets a copy of what.

use clap::Args;
use doorbell::operate::TopicRow;
use serde_json::{Value, json};

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 7] = ["TOPIC", "SUBSCRIBER", "TYPES", "SOURCES", "WAITING", "UNROUTED", "STATE"];

/// List the topics and tapped queues, with their subscribers
///
/// WAITING is what the subscriber has not handled yet, copies and others. UNROUTED is how many messages of the topic nobody took,
/// since the beginning. A subscriber that is behind still gets what was published before it subscribed. With a topic and a type
/// it says who would get such a message.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell topics
  doorbell topics orders order.placed          who would get that

JSON: {\"topics\": [{\"topic\", \"tapped\", \"target\", \"types\", \"sources\", \"subscribed_at\", \"is_behind\", \"waiting\", \
\"unrouted\"}]}; with a topic and a type {\"targets\": [TARGET, …]}.")]
pub(crate) struct Topics {
    /// What would be published to
    #[arg(requires = "record_type")]
    topic: Option<String>,

    /// A record type
    #[arg(value_name = "TYPE")]
    record_type: Option<String>,

    /// Published by this source
    #[arg(short, long, requires = "record_type")]
    source: Option<String>,
}

impl Topics {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let operator = global.database.broker().await?.operator();
        if let (Some(topic), Some(record_type)) = (&self.topic, &self.record_type) {
            let targets = operator.routes(topic, record_type, self.source.as_deref()).await?;
            if global.json {
                output::json(&json!({ "targets": targets }))?;
            } else {
                targets.iter().try_for_each(|target| output::line(output::printable(target)))?;
            }
            if targets.is_empty() {
                eprintln!("nobody would get it");
            }
            return Ok(if targets.is_empty() { Exit::NothingFound } else { Exit::Done });
        }
        let topics = operator.topics().await?;
        if global.json {
            output::json(&json!({ "topics": topics.iter().map(topic_json).collect::<Vec<_>>() }))?;
            return Ok(Exit::Done);
        }
        if topics.is_empty() {
            eprintln!("there are no topics");
        }
        output::table(&HEADINGS, &topics.iter().map(cells).collect::<Vec<_>>())?;
        Ok(Exit::Done)
    }
}

fn topic_json(row: &TopicRow) -> Value {
    json!({
        "topic": row.topic, "tapped": row.tapped, "target": row.target, "types": row.types, "sources": row.sources,
        "subscribed_at": row.subscribed_at.map(rfc3339), "is_behind": row.is_behind, "waiting": row.waiting,
        "unrouted": row.unrouted,
    })
}

fn cells(row: &TopicRow) -> Vec<String> {
    let all = |names: &[String]| if names.is_empty() { "all".to_owned() } else { names.join(", ") };
    let subscribed = row.target.is_some();
    vec![
        row.topic.clone(),
        row.target.clone().unwrap_or_else(|| "-".to_owned()),
        if subscribed { all(&row.types) } else { "-".to_owned() },
        if subscribed { all(&row.sources) } else { "-".to_owned() },
        row.waiting.map_or_else(|| "-".to_owned(), |waiting| waiting.to_string()),
        row.unrouted.to_string(),
        match (subscribed, row.is_behind, row.tapped) {
            (false, ..) => "nobody is subscribed",
            (_, true, _) => "behind",
            (_, _, true) => "taps a queue",
            _ => "-",
        }
        .to_owned(),
    ]
}
