//! `doorbell schedule`: again and again.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use doorbell::{
    Message,
    operate::{Missed, Schedule as Wanted, When},
};
use serde_json::{json, value::RawValue};

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    output,
    publish::header,
    timestamp::rfc3339,
};

/// Publish a message again and again: add, pause, resume, fire or remove a schedule
///
/// At each tick one message, whoever is there to fire it: a consumer of the target, or the maintenance. It has headers
/// \"schedule\" and \"tick\". `doorbell schedules` lists them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell schedule add nightly billing report.run --cron '30 2 * * *' --zone Europe/Berlin
  doorbell schedule add poll crm crm.poll --every 5m --skip-overlap
  doorbell schedule pause nightly
  doorbell schedule fire nightly                 once, now, beside its ticks
  doorbell schedule remove nightly

JSON: {\"schedule\", \"next_at\"} of add, {\"schedule\", \"id\"} of fire, {\"schedule\", \"changed\"} of the others.")]
pub(crate) struct Schedule {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a schedule, or change the one of that name
    Add(Box<Add>),
    /// Fire no more ticks until it is resumed
    Pause {
        /// The schedule
        name: String,
    },
    /// Go on, and make up for what was missed as the schedule says
    Resume {
        /// The schedule
        name: String,
    },
    /// Publish its message now
    Fire {
        /// The schedule
        name: String,
    },
    /// End it; what it has published stays
    Remove {
        /// The schedule
        name: String,
    },
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("when").required(true).args(["cron", "every"])))]
struct Add {
    /// Its name
    name: String,

    /// The application that the messages are for
    target: String,

    /// What they are
    #[arg(value_name = "TYPE")]
    record_type: String,

    /// Five fields: minute, hour, day of month, month, day of week
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,

    /// The time zone of the cron expression, as the server knows it
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,

    /// Every so long, from now: 30s, 5m, 1d
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    every: Option<Duration>,

    /// The payload
    #[arg(long, value_name = "JSON", default_value = "{}", allow_hyphen_values = true)]
    data: String,

    /// The application that they come from
    #[arg(long, value_name = "APP", default_value = "schedule")]
    source: String,

    /// Travels beside the payload; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// Higher goes first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,

    /// Ordering key, handed to the handler
    #[arg(long = "key", value_name = "ORDERING")]
    ordering_key: Option<String>,

    /// Due at a random time so long after the tick
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse, allow_hyphen_values = true)]
    jitter: Duration,

    /// What becomes of ticks at which nobody was there
    #[arg(long, value_name = "WHICH", value_parser = ["latest", "all", "skip"], default_value = "latest")]
    missed: String,

    /// Fire no tick while the message of the one before has not ended
    #[arg(long)]
    skip_overlap: bool,
}

impl Add {
    fn wanted(self) -> Result<Wanted, Failure> {
        let data = RawValue::from_string(self.data)
            .map_err(|error| Failure::new(Exit::BadData, format!("--data is no JSON: {error}")))?;
        let mut message = Message::from_raw(self.target, self.record_type, data).priority(self.priority);
        for (name, value) in self.headers {
            message = message.header(name, value);
        }
        if let Some(key) = self.ordering_key {
            message = message.ordering_key(key);
        }
        let when = match (self.cron, self.every) {
            (Some(expression), _) => When::Cron { expression, zone: self.zone },
            (None, every) => When::Every(every.unwrap_or_default()),
        };
        let missed = match self.missed.as_str() {
            "all" => Missed::All,
            "skip" => Missed::Skip,
            _ => Missed::Latest,
        };
        let (source, skip_overlap, jitter) = (self.source, self.skip_overlap, self.jitter);
        Ok(Wanted { source, missed, skip_overlap, jitter, ..Wanted::new(self.name, when, message) })
    }
}

impl Schedule {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let operator = global.database.broker().await?.operator();
        let (name, changed, done) = match self.verb {
            Verb::Add(add) => {
                let wanted = add.wanted()?;
                let next = rfc3339(operator.schedule(&wanted).await?);
                if global.json {
                    output::json(&json!({ "schedule": wanted.name, "next_at": next }))?;
                } else {
                    eprintln!("{} is fired next at {next}", output::printable(&wanted.name));
                }
                return Ok(Exit::Done);
            }
            Verb::Fire { name } => {
                let id = operator.fire_schedule(&name).await?;
                if global.json {
                    output::json(&json!({ "schedule": name, "id": id }))?;
                } else {
                    output::line(id)?;
                }
                return Ok(Exit::Done);
            }
            Verb::Pause { name } => (name.clone(), operator.pause_schedule(&name, true).await?, "paused"),
            Verb::Resume { name } => (name.clone(), operator.pause_schedule(&name, false).await?, "fired again"),
            Verb::Remove { name } => (name.clone(), operator.unschedule(&name).await?, "gone"),
        };
        if global.json {
            output::json(&json!({ "schedule": name, "changed": changed }))?;
        } else {
            let name = output::printable(&name);
            eprintln!(
                "{}",
                if changed {
                    format!("{name} is {done}")
                } else {
                    format!("nothing changed: {name} was so, or there is none")
                }
            );
        }
        Ok(if changed { Exit::Done } else { Exit::NothingFound })
    }
}
