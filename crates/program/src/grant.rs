//! `doorbell grant`: allow a role something.

use clap::Args;
use doorbell::operate::AppRights;

use crate::{
    Global,
    exit::{Exit, Failure},
    grantee::{Grantee, Scope},
};

/// Allow a role to act for one application, or for all of them
///
/// With --app: to publish as this application to the targets that --to names, and with --consume to take what is published for
/// it; what the role could do for this application before is replaced. With a verb instead: for all applications. Run it as
/// the owner of the schema; the role must exist, and a role that is granted to others gives them the same.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell grant shop_web --app shop --to billing --to mailer
  doorbell grant shop_web --app shop --to billing --max-priority 5 --max-pending 10000
  doorbell grant billing_worker --app billing --consume
  doorbell grant dashboard look

Verbs: publish and consume (for all applications), look (everything, payloads too), operate (look, and act).
JSON: {\"role\", \"app\"} or {\"role\", \"verb\"}.")]
pub(crate) struct Grant {
    #[command(flatten)]
    grantee: Grantee,

    /// A target that it may publish to; '*' is any
    #[arg(long = "to", value_name = "TARGET", requires = "app")]
    publish_to: Vec<String>,

    /// Take and settle what is published for the application
    #[arg(long, requires = "app")]
    consume: bool,

    /// The highest priority it may give [default: any]
    #[arg(long, value_name = "NUMBER", requires = "publish_to", allow_negative_numbers = true)]
    max_priority: Option<i32>,

    /// How many of the application's messages may wait for each target [default: any number]
    #[arg(long, value_name = "COUNT", requires = "publish_to", value_parser = clap::value_parser!(i32).range(1..))]
    max_pending: Option<i32>,
}

impl Grant {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let Self { grantee, publish_to, consume, max_priority, max_pending } = self;
        let operator = global.database.broker().await?.operator();
        match grantee.scope() {
            Scope::Verb(verb) => operator.grant(&grantee.role, verb).await?,
            Scope::App(app) => {
                let rights = AppRights { publish_to, consume, max_priority, max_pending };
                operator.grant_app(&app, &grantee.role, &rights).await?;
            }
        }
        grantee.tell(global)?;
        Ok(Exit::Done)
    }
}
