//! `doorbell unsubscribe`: no more copies.

use clap::Args;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// End a subscription: what is published from now on is not copied
///
/// Copies that were made stay and are handled. Exit code 3 when there was no subscription.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell unsubscribe orders mailer

JSON: {\"topic\", \"target\", \"subscribed\": false}.")]
pub(crate) struct Unsubscribe {
    /// What is published to
    topic: String,

    /// Who got copies
    target: String,
}

impl Unsubscribe {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let Self { topic, target } = self;
        let was = global.database.broker().await?.operator().unsubscribe(&topic, &target).await?;
        let (shown_topic, shown_target) = (output::printable(&topic), output::printable(&target));
        if !was {
            eprintln!("{shown_target} is not subscribed to {shown_topic}; who is: doorbell topics");
            return Ok(Exit::NothingFound);
        }
        if global.json {
            output::json(&json!({ "topic": topic, "target": target, "subscribed": false }))?;
        } else {
            eprintln!("{shown_target} gets no more copies of what is published to {shown_topic}");
        }
        Ok(Exit::Done)
    }
}
