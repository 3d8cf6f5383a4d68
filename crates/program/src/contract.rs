//! `doorbell contract`: what messages have to say.

use clap::{Args, Subcommand};
use doorbell::operate::{Breach, Contract as Wanted};
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Say what messages of a record type have to fulfil to be published to a target
///
/// The rule is a condition in jsonpath over the payload, which PostgreSQL asks when a message is published, whoever publishes. Of
/// several versions one is enough. `doorbell contracts` lists them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell contract set billing order.placed --rule 'strict $.cents > 0 && exists($.order)'
  doorbell contract set billing order --rule '$.amount > 0' --of-version 2
  doorbell contract forget billing order.placed

JSON: {\"target\", \"type\", \"new\"} of set, {\"target\", \"type\", \"changed\"} of forget.")]
pub(crate) struct Contract {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a contract, or change it, from the next publish on
    Set {
        /// The application that the messages are for
        target: String,
        /// What they are
        #[arg(value_name = "TYPE")]
        record_type: String,
        /// What has to be true of the payload
        #[arg(long, value_name = "JSONPATH")]
        rule: String,
        /// What becomes of a message of which it is not: its publish fails, it is stored as failed, or it is counted
        #[arg(long, value_name = "WHAT", value_parser = ["reject", "fail", "warn"], default_value = "reject")]
        policy: String,
        /// Which version: one of them has to be true; the newest one has the policy
        #[arg(long = "of-version", value_name = "N", default_value_t = 1)]
        version: u16,
    },
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

impl Contract {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let operator = global.database.broker().await?.operator();
        match self.verb {
            Verb::Set { target, record_type, rule, policy, version } => {
                let policy = match policy.as_str() {
                    "fail" => Breach::Fail,
                    "warn" => Breach::Warn,
                    _ => Breach::Reject,
                };
                let wanted = Wanted { target, record_type, rule, policy, version };
                let new = operator.contract(&wanted).await?;
                if global.json {
                    output::json(&json!({ "target": wanted.target, "type": wanted.record_type, "new": new }))?;
                    return Ok(Exit::Done);
                }
                let (target, record_type) = (output::printable(&wanted.target), output::printable(&wanted.record_type));
                let what = match policy {
                    Breach::Reject => "is rejected",
                    Breach::Fail => "is stored as failed",
                    Breach::Warn => "is counted",
                };
                eprintln!("{record_type} for {target} that breaks version {version} {what} from now on");
                Ok(Exit::Done)
            }
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
