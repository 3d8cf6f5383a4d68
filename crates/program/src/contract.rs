//! `doorbell contract`: what messages have to say.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use doorbell::{
    operate::{Breach, Contract as Wanted, Operator},
    written::json_schema,
};
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Say what messages of a record type have to fulfil to be published to a target
///
/// The rule is a condition in jsonpath over the payload, which PostgreSQL asks when a message is published, whoever publishes. It
/// can be made of a JSON Schema; what jsonpath cannot say of that is refused. Of several versions one is enough. `doorbell
/// contracts` lists them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell contract set billing order.placed --rule 'strict $.cents > 0 && exists($.order)'
  doorbell contract set billing order --rule '$.amount > 0' --of-version 2
  doorbell contract set billing order.placed --json-schema order.schema.json
  doorbell contract forget billing order.placed

JSON: {\"target\", \"type\", \"rule\", \"new\"} of set, {\"target\", \"type\", \"changed\"} of forget.")]
pub(crate) struct Contract {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a contract, or change it, from the next publish on
    Set(Set),
    /// End a contract
    Forget {
        /// The application that the messages are for
        target: String,
        /// What they are
        #[arg(value_name = "TYPE")]
        record_type: String,
        /// Only this version
        #[arg(long = "of-version", value_name = "N")]
        version: Option<u16>,
    },
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").required(true).args(["rule", "json_schema"])))]
struct Set {
    /// The application that the messages are for
    target: String,

    /// What they are
    #[arg(value_name = "TYPE")]
    record_type: String,

    /// What has to be true of the payload
    #[arg(long, value_name = "JSONPATH")]
    rule: Option<String>,

    /// A JSON Schema that the payload has to fulfil; the rule that is made of it is printed
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,

    /// What becomes of a message of which it is not: its publish fails, it is stored as failed, or it is counted
    #[arg(long, value_name = "WHAT", value_parser = ["reject", "fail", "warn"], default_value = "reject")]
    policy: String,

    /// Which version: one of them has to be true; the newest one has the policy
    #[arg(long = "of-version", value_name = "N", default_value_t = 1)]
    version: u16,
}

impl Contract {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let operator = global.database.broker().await?.operator();
        match self.verb {
            Verb::Set(set) => set.run(&operator, global.json).await,
            Verb::Forget { target, record_type, version } => {
                let changed = operator.forget_contract(&target, &record_type, version).await?;
                if global.json {
                    output::json(&json!({ "target": target, "type": record_type, "changed": changed }))?;
                } else {
                    let (target, record_type) = (output::printable(&target), output::printable(&record_type));
                    match changed {
                        true => eprintln!("{record_type} for {target} is not bound any more"),
                        false => eprintln!("there is no such contract; those there are: doorbell contracts"),
                    }
                }
                Ok(if changed { Exit::Done } else { Exit::NothingFound })
            }
        }
    }
}

impl Set {
    async fn run(self, operator: &Operator, as_json: bool) -> Result<Exit, Failure> {
        let Self { target, record_type, rule, json_schema, policy, version } = self;
        let policy = match policy.as_str() {
            "fail" => Breach::Fail,
            "warn" => Breach::Warn,
            _ => Breach::Reject,
        };
        let made = json_schema.as_deref().map(rule_of).transpose()?;
        let rule = made.clone().or(rule).unwrap_or_default();
        let wanted = Wanted { target, record_type, rule, policy, version };
        let new = operator.contract(&wanted).await?;
        let Wanted { target, record_type, rule, .. } = wanted;
        if as_json {
            output::json(&json!({ "target": target, "type": record_type, "rule": rule, "new": new }))?;
            return Ok(Exit::Done);
        }
        if let Some(rule) = made {
            output::line(rule)?;
        }
        let what = match policy {
            Breach::Reject => "is rejected",
            Breach::Fail => "is stored as failed",
            Breach::Warn => "is counted",
        };
        let (target, record_type) = (output::printable(&target), output::printable(&record_type));
        eprintln!("{record_type} for {target} that breaks version {version} {what} from now on");
        Ok(Exit::Done)
    }
}

/// The rule that says what a JSON Schema in a file does.
fn rule_of(file: &Path) -> Result<String, Failure> {
    let name = output::printable(&file.display().to_string());
    let text = std::fs::read_to_string(file).map_err(|error| Failure::from(error).context(&name))?;
    let bad = |error: serde_json::Error| Failure::new(Exit::BadData, format!("{name} is no JSON: {error}"));
    let schema = serde_json::from_str(&text).map_err(bad)?;
    json_schema::rule(&schema).map_err(|error| Failure::from(error).context(&name))
}
