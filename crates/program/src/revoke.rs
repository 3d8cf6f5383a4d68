//! `doorbell revoke`: take a right back.

use clap::Args;

use crate::{
    Global,
    exit::{Exit, Failure},
    grantee::{Grantee, Scope},
};

/// Take from a role what it may do for an application, or a verb that it has for all of them
///
/// What else it may do stays. Run it as the owner of the schema. A consumer that may not consume any more stops.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell revoke shop_web --app shop
  doorbell revoke dashboard look

Ends with 3 when the role could do nothing for the application.
JSON: {\"role\", \"app\"} or {\"role\", \"verb\"}.")]
pub(crate) struct Revoke {
    #[command(flatten)]
    grantee: Grantee,
}

impl Revoke {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let Self { grantee } = self;
        let operator = global.database.broker().await?.operator();
        match grantee.scope() {
            Scope::Verb(verb) => operator.revoke(&grantee.role, verb).await?,
            Scope::App(app) => {
                if !operator.revoke_app(&app, &grantee.role).await? {
                    let why = format!("role {} may do nothing for {app}", grantee.role);
                    return Err(Failure::new(Exit::NothingFound, why));
                }
            }
        }
        grantee.tell(global)?;
        Ok(Exit::Done)
    }
}
