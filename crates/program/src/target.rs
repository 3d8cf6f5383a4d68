//! `doorbell target`: the settings of one.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use crate::{
    Global,
    exit::{Exit, Failure},
    names, output,
};

/// Show, change or forget the settings of a target
///
/// What is not set for a target holds as the installation has it; see the page about deploying. Changes hold at once and
/// are in the audit log.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell target show billing
  doorbell target show                                    the settings of the installation
  doorbell target set billing max_in_flight=20 failed_retention='90 days'
  doorbell target set billing rate_max=100 rate_per=1min    at most 100 in any minute
  doorbell target set codes expire_after=10min              who takes none by then need not
  doorbell target set billing max_in_flight=              as the installation has it
  doorbell target forget biling                           a name that was typed wrong

JSON: {\"target\", \"settings\", \"own\", \"paused_at\", \"paused_by\", \"pause_reason\", \"paused_until\"}.")]
pub(crate) struct Target {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print its settings; a * marks those that are its own
    Show {
        /// The target; without one, the settings of the installation
        target: Option<String>,
    },
    /// Change settings; an empty value gives one back to the installation
    Set {
        /// The target
        target: String,
        /// What to change: bell, max_retries, max_crashes, backoff_base_ms, backoff_factor, backoff_cap_ms, max_in_flight,
        /// foreign_lease, on_complete, completed_retention, failed_retention, breaker_key, kind, unrouted, rate_max, rate_per,
        /// expire_after
        #[arg(value_name = "NAME=VALUE", required = true, value_parser = assignment)]
        settings: Vec<(String, Value)>,
        /// It may be one that nothing knows yet
        #[arg(long)]
        new: bool,
    },
    /// Forget its settings and counts; refused while it has messages or a consumer
    Forget {
        /// The target
        target: String,
    },
}

fn assignment(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((name, "")) if !name.is_empty() => Ok((name.to_owned(), Value::Null)),
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), Value::String(value.to_owned()))),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl Target {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let operator = broker.operator();
        let text = match self.verb {
            Verb::Show { target: None } => {
                let settings = operator.settings().await?;
                if global.json {
                    output::json_text(settings)?;
                } else {
                    let settings: Value = serde_json::from_str(&settings).map_err(std::io::Error::from)?;
                    print(&serde_json::json!({ "settings": settings }))?;
                }
                return Ok(Exit::Done);
            }
            Verb::Show { target: Some(target) } => match operator.target(&target).await? {
                Some(text) => text,
                None => {
                    names::is_unknown(&broker, Some(&target)).await?;
                    return Ok(Exit::NothingFound);
                }
            },
            Verb::Set { target, settings, new } => {
                names::must_be_known(&broker, &target, new).await?;
                let settings: Map<String, Value> = settings.into_iter().collect();
                operator.set_target(&target, &Value::Object(settings).to_string()).await?
            }
            Verb::Forget { target } => {
                if !operator.forget_target(&target).await? {
                    names::is_unknown(&broker, Some(&target)).await?;
                    return Ok(Exit::NothingFound);
                }
                eprintln!("{} is forgotten", output::printable(&target));
                return Ok(Exit::Done);
            }
        };
        if global.json {
            output::json_text(text)?;
            return Ok(Exit::Done);
        }
        print(&serde_json::from_str(&text).map_err(std::io::Error::from)?)?;
        Ok(Exit::Done)
    }
}

fn print(target: &Value) -> std::io::Result<()> {
    let own = target["own"].as_array().cloned().unwrap_or_default();
    for (name, value) in target["settings"].as_object().into_iter().flatten() {
        let value = match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mark = if own.contains(&Value::from(name.as_str())) { "*" } else { " " };
        output::line(format_args!("{mark} {name:<20} {}", output::printable(&value)))?;
    }
    for name in ["paused_at", "paused_by", "pause_reason", "paused_until"] {
        if let Some(text) = target[name].as_str() {
            output::line(format_args!("  {name:<20} {}", output::printable(text)))?;
        }
    }
    Ok(())
}
