//! `doorbell request`: ask, and wait for the answer.

use std::time::Duration;

use clap::Args;
use doorbell::{Answer, Message};
use serde_json::{json, value::RawValue};

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    names, output,
    publish::header,
};

/// Publish a request, wait for the reply, and print it
///
/// A request is a message that is completed together with a reply (Replier::reply in Rust, integration.reply in SQL). One
/// that nobody has taken when the time is over is cancelled, so that nobody works for who has left.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell request pricing --source shop --type price.ask --data '{\"item\": 7}'
  doorbell request pricing --source shop --type price.ask --data '{\"item\": 7}' --within 5s | jq .cents

Exit code 1 when it failed or was cancelled, 3 when it was completed without a reply or is gone, 75 when the time was \
over: nobody took it, or somebody is still at it.
JSON: {\"reply\"}.")]
pub(crate) struct Request {
    /// The application that is asked
    target: String,

    /// The application that asks
    #[arg(long, value_name = "APP")]
    source: String,

    /// What is asked
    #[arg(long = "type", value_name = "TYPE")]
    record_type: String,

    /// The payload
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    data: String,

    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse, allow_hyphen_values = true)]
    within: Duration,

    /// Higher goes first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,

    /// Travels beside the payload; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// Ordering key, handed to the handler
    #[arg(long = "key", value_name = "ORDERING")]
    ordering_key: Option<String>,

    /// Asking again under the same key of the same source gets the first request's answer
    #[arg(long, value_name = "KEY")]
    dedup_key: Option<String>,
}

impl Request {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        names::warn_if_misspelt(&broker, &self.target).await;
        let data = RawValue::from_string(self.data)
            .map_err(|error| Failure::new(Exit::BadData, format!("--data is no JSON: {error}")))?;
        let mut message = Message::from_raw(self.target, self.record_type, data).priority(self.priority);
        for (name, value) in self.headers {
            message = message.header(name, value);
        }
        message = self.ordering_key.into_iter().fold(message, Message::ordering_key);
        message = self.dedup_key.into_iter().fold(message, Message::dedup_key);
        let answer = broker.producer(self.source).request::<Box<RawValue>>(&message, self.within).await?;
        broker.close().await;
        let exit = match &answer {
            Answer::Completed | Answer::Gone => Exit::NothingFound,
            Answer::Expired | Answer::Late(_) => Exit::Temporary,
            _ => Exit::Failed,
        };
        let reply = answer.reply().map_err(|error| Failure::new(exit, error.to_string()))?;
        if global.json {
            output::json(&json!({ "reply": reply }))?;
        } else {
            output::line(reply.get())?;
        }
        Ok(Exit::Done)
    }
}
