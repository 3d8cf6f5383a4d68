//! `doorbell revoke`: take a right back.

use clap::Args;
use doorbell::operate::Verb;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Take from a role what it may do for an application, or a verb that it has for all of them
///
/// What else it may do stays. Run it as the owner of the schema. A consumer that may not consume any more stops.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell revoke shop_web --app shop
  doorbell revoke dashboard look

Ends with 3 when the role could do nothing for the application. JSON: {\"role\", \"app\"} or {\"role\", \"verb\"}.")]
pub(crate) struct Revoke {
    /// The role
    role: String,

    /// For all applications
    #[arg(value_name = "VERB", required_unless_present = "app", conflicts_with = "app")]
    verb: Option<Verb>,

    /// The application
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
}

impl Revoke {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let Self { role, verb, app } = self;
        let operator = global.database.broker().await?.operator();
        let revoked = match (verb, app) {
            (Some(verb), _) => {
                operator.revoke(&role, verb).await?;
                json!({ "role": role, "verb": verb })
            }
            (None, app) => {
                let app = app.unwrap_or_default();
                if !operator.revoke_app(&app, &role).await? {
                    return Err(Failure::new(Exit::NothingFound, format!("role {role} may do nothing for {app}")));
                }
                json!({ "role": role, "app": app })
            }
        };
        if global.json {
            output::json(&revoked)?;
        }
        Ok(Exit::Done)
    }
}
