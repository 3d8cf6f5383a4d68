//! `doorbell publish`: one message, or a file of them.

mod bulk;
mod cloudevent;
mod ids;
mod lines;

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use doorbell::{Broker, Message};
use serde::Serialize;
use serde_json::value::RawValue;

use self::{ids::Ids, lines::not_json};
use crate::{
    Global, duration,
    exit::{Exit, Failure},
    names, output,
};

/// Publish messages for a target
///
/// With --data one message; with --file or - newline-delimited JSON, one message a line. All lines are published in one
/// transaction when the input has ended: either all of them or, if any is bad, none. Blank lines are skipped.
///
/// Prints the ids of the messages, one a line.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("input").required(true).args(["data", "file", "stdin"])), after_help = "\
Examples:
  doorbell publish billing --source shop --type order.placed --data '{\"order\": 7}'
  doorbell publish billing --source shop --type reminder --delay 5m --data '{\"order\": 7}'
  doorbell publish billing --source shop --type order.placed --file orders.ndjson
  jq -c '.[]' orders.json | doorbell publish billing --source shop --type order.placed -
  doorbell publish billing --source shop --type order.placed --dedup-key order-7 --data '{}'
  doorbell publish mailer --source shop --type digest --coalesce user-7 --delay 5m --data '{}'
  doorbell publish billing --cloudevents --file events.ndjson

A bad line ends it with exit code 65 and its number, and nothing is published.
JSON: {\"published\": 2, \"ids\": [41, 42]}.")]
pub(crate) struct Publish {
    /// The application it is for
    target: String,

    /// The application it comes from
    #[arg(long, value_name = "APP", required_unless_present = "cloudevents")]
    source: Option<String>,

    /// What it is
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "cloudevents")]
    record_type: Option<String>,

    /// Each is an event of CloudEvents 1.0 in JSON, which says its source and type; its id is the dedup key
    #[arg(long, conflicts_with_all = ["source", "record_type", "headers", "ordering_key", "dedup_key", "coalesce"])]
    cloudevents: bool,

    /// The payload of one message
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    data: Option<String>,

    /// A file of payloads, one a line
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Payloads from stdin, one a line
    #[arg(value_name = "-", value_parser = ["-"], hide_possible_values = true)]
    stdin: Option<String>,

    /// Higher goes first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,

    /// Not before so long from now: 5m, 1h30m, or seconds
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    delay: Option<Duration>,

    /// Cancelled when it still waits after so long
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    expires_after: Option<Duration>,

    /// Travels beside the payload; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// Ordering key, handed to the handler
    #[arg(long = "key", value_name = "ORDERING")]
    ordering_key: Option<String>,

    /// Publishing the same key of the same source again answers with the first message's id
    #[arg(long, value_name = "KEY", conflicts_with_all = ["file", "stdin"])]
    dedup_key: Option<String>,

    /// While the last one under this key waits, this replaces what it says; a delay begins anew
    #[arg(long, value_name = "KEY", conflicts_with = "dedup_key")]
    coalesce: Option<String>,

    /// Later ones put it off until so long after the first; ten times the delay by default
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "coalesce", allow_hyphen_values = true)]
    max_wait: Option<Duration>,
}

impl Publish {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        names::warn_if_misspelt(&broker, &self.target).await;
        let ids = match &self.data {
            Some(data) => {
                let (source, message) = self.message(data).map_err(|failure| failure.context("--data"))?;
                Ids::from(broker.producer(source).publish(&message).await?)
            }
            None => {
                let checked = |line: &str| self.checked(&broker, line);
                bulk::publish(self.file.as_deref(), &broker, &checked).await?
            }
        };
        broker.close().await;
        if global.json {
            output::json(&Report { published: ids.len(), ids })?;
        } else {
            ids.iter().try_for_each(output::line)?;
        }
        Ok(Exit::Done)
    }

    /// The message with this payload, or of this event, and the application that it comes from.
    fn message(&self, text: &str) -> Result<(String, Message), Failure> {
        let (source, mut message) = if self.cloudevents {
            cloudevent::read(&self.target, text)?
        } else {
            let payload: Box<RawValue> = serde_json::from_str(text.trim()).map_err(|error| not_json(&error))?;
            let record_type = self.record_type.as_deref().unwrap_or_default();
            (self.source.clone().unwrap_or_default(), Message::from_raw(&self.target, record_type, payload))
        };
        message = message.priority(self.priority);
        for (name, value) in &self.headers {
            message = message.header(name, value);
        }
        message = self.delay.into_iter().fold(message, Message::delay);
        message = self.expires_after.into_iter().fold(message, Message::expires_after);
        message = self.ordering_key.iter().fold(message, Message::ordering_key);
        message = self.coalesce.iter().fold(message, Message::coalesce);
        message = self.max_wait.into_iter().fold(message, Message::max_wait);
        Ok((source, self.dedup_key.iter().fold(message, Message::dedup_key)))
    }

    /// As [`message`](Self::message), checked as far as that is possible without the server.
    fn checked(&self, broker: &Broker, text: &str) -> Result<(String, Message), Failure> {
        let (source, message) = self.message(text)?;
        broker.producer(&source).check(&message)?;
        Ok((source, message))
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    published: u64,
    ids: Ids,
}

/// A header, as an option has it.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}
