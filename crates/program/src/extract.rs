//! `doorbell extract`: rows of a table or a query as messages.

mod keep;
mod run;
mod what;

use std::time::Duration;

use clap::{Args, Subcommand};
use doorbell::operate::Watermark;
use serde_json::json;

use self::what::What;
use crate::{
    Global, duration,
    exit::{Exit, Failure},
    output,
};

/// Publish rows of a table or a query: all of them once, or what is new and changed again and again
///
/// For tables that are not to bear triggers (else see `doorbell capture`), and for what was there before. Each row is a message
/// {\"table\", \"op\": \"read\", \"new\"} with its key as ordering key. Tables are read in the name of the schema's owner, who alone
/// adds and runs extracts; those of another database by this command, which goes on where it was. `doorbell extracts` lists them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell extract add orders warehouse --table shop.orders --watermark updated_at
  doorbell extract run orders-once warehouse --table shop.orders --type order
  doorbell extract run totals reports --query 'select day, sum(cents) from shop.orders group by day' --key day
  doorbell extract run orders-once warehouse --table shop.orders --type order --resume
  DOORBELL_SOURCE_URL=postgres://reader@erp/erp doorbell extract add items \\
      warehouse --table erp.items --watermark changed_at
  doorbell extract pause orders
  doorbell extract remove orders

JSON: {\"extract\", \"new\"} of add, {\"extract\", \"published\", \"skipped\"} of run, {\"extract\", \"changed\"} of the others.")]
pub(crate) struct Extract {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Look for new and changed rows again and again, by a column that grows
    Add(Add),
    /// Read all rows once, page by page
    Run(run::Run),
    /// Look no more until it is resumed
    Pause {
        /// The extract
        name: String,
    },
    /// Go on from where it was
    Resume {
        /// The extract
        name: String,
    },
    /// End it and forget how far it came; what it has published stays
    Remove {
        /// The extract
        name: String,
    },
}

#[derive(Args, Debug)]
struct Add {
    #[command(flatten)]
    what: What,

    /// The column that grows with every change: a time, or a number from a sequence without a cache
    #[arg(long, value_name = "COLUMN")]
    watermark: String,

    /// How often to look
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse, allow_hyphen_values = true)]
    every: Duration,

    /// How late a clock may be that writes the watermark
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse, allow_hyphen_values = true)]
    grace: Duration,

    /// Only what is greater than this
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    after: Option<String>,
}

impl Extract {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let operator = global.database.broker().await?.operator();
        let (name, changed, done) = match self.verb {
            Verb::Run(run) => return run.run(&operator, global.json).await,
            Verb::Add(Add { what, watermark: column, every, grace, after }) => {
                let foreign = what.foreign()?;
                let wanted = what.wanted(Some(Watermark { column, every, grace, after }));
                let new = match &foreign {
                    Some(source) => keep::make(&operator, source, &wanted).await?,
                    None => operator.extract(&wanted).await?,
                };
                if global.json {
                    output::json(&json!({ "extract": wanted.name, "new": new }))?;
                } else {
                    let (name, target) = (output::printable(&wanted.name), output::printable(&wanted.target));
                    match new {
                        true => eprintln!("{target} gets every row of {name}, and from then on what is new or changed"),
                        false => eprintln!("{name} was there; it is as you say now, and goes on from where it is"),
                    }
                }
                return match foreign {
                    Some(source) => keep::reading(&operator, &source, &wanted.name).await,
                    None => Ok(Exit::Done),
                };
            }
            Verb::Pause { name } => (name.clone(), operator.pause_extract(&name, true).await?, "paused"),
            Verb::Resume { name } => (name.clone(), operator.pause_extract(&name, false).await?, "going on"),
            Verb::Remove { name } => (name.clone(), operator.forget_extract(&name).await?, "gone"),
        };
        if global.json {
            output::json(&json!({ "extract": name, "changed": changed }))?;
        } else {
            let name = output::printable(&name);
            match changed {
                true => eprintln!("{name} is {done}"),
                false => eprintln!("nothing changed: {name} was so, or there is none"),
            }
        }
        Ok(if changed { Exit::Done } else { Exit::NothingFound })
    }
}
