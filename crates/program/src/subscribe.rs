//! `doorbell subscribe`: a copy for one more.

use clap::Args;
use doorbell::operate::{Moment, Subscription};
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output, timestamp,
};

/// Let a target have a copy of everything that is published to a topic
///
/// From now on, in the transaction that publishes: all subscribers get their copy, or none does. Each copy is a message like
/// all others. What it is published to becomes a topic, whose own messages are completed at once; with --tap it stays a queue.
/// Who is subscribed already gets other types and sources.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell subscribe orders billing
  doorbell subscribe orders mailer --type order.placed --type 'refund.#'
  doorbell subscribe orders warehouse --since 7d          what was published before, too
  doorbell subscribe billing audit --tap                  billing goes on as ever

JSON: {\"topic\", \"target\", \"new\"}.")]
pub(crate) struct Subscribe {
    /// What is published to
    topic: String,

    /// Who gets a copy
    target: String,

    /// Only messages of this record type: a name, or words between dots, where * is one word and # any number; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,

    /// Only messages from this source; may be repeated
    #[arg(short, long = "source", value_name = "SOURCE")]
    sources: Vec<String>,

    /// Also what was published since then: 2026-03-01T02:10Z, 02:10 (UTC), or how long ago (7d)
    #[arg(long, value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    since: Option<Moment>,

    /// Leave the topic the queue it is
    #[arg(long)]
    tap: bool,
}

impl Subscribe {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let Self { topic, target, types, sources, since, tap } = self;
        let wanted = Subscription { topic, target, types, sources, since, tap };
        let new = global.database.broker().await?.operator().subscribe(&wanted).await?;
        if global.json {
            output::json(&json!({ "topic": wanted.topic, "target": wanted.target, "new": new }))?;
            return Ok(Exit::Done);
        }
        let (topic, target) = (output::printable(&wanted.topic), output::printable(&wanted.target));
        match (new, since) {
            (true, None) => eprintln!("{target} gets a copy of what is published to {topic} from now on"),
            (true, Some(_)) => {
                eprintln!(
                    "{target} gets a copy of what is published to {topic}; what was before follows, see: doorbell topics"
                );
            }
            (false, _) => eprintln!("{target} was subscribed to {topic}; types and sources are as you say now"),
        }
        Ok(Exit::Done)
    }
}
