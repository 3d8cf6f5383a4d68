//! `doorbell breaker`: by hand.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    names, output,
};

/// Open or close a circuit breaker by hand
///
/// While a breaker is open nothing it guards is claimed, by any consumer, and no retry is used up. Breakers also open by
/// themselves when handlers fail, and close when the first messages let through come back well.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell breaker open billing --reason 'card processor maintenance' --for 10m
  doorbell breaker close billing

JSON: {\"breaker\", \"state\", \"changed\"}.")]
pub(crate) struct Breaker {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Claim nothing that it guards
    Open {
        /// A target, or the breaker key of several
        key: String,
        /// Shown to whoever wonders why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Let the first messages through after this long; without it, not before it is closed by hand
        #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
        reopen: Option<Duration>,
        /// It may be one that nothing knows yet
        #[arg(long)]
        new: bool,
    },
    /// Claim again; exit code 3 when it was closed
    Close {
        /// A target, or the breaker key of several
        key: String,
        /// Kept in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

impl Breaker {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let (key, state, changed) = match self.action {
            Action::Open { key, reason, reopen, new } => {
                names::must_guard(&broker, &key, new).await?;
                broker.operator().open_breaker(&key, reason.as_deref(), reopen).await?;
                (key, "open", true)
            }
            Action::Close { key, reason } => {
                let changed = broker.operator().close_breaker(&key, reason.as_deref()).await?;
                (key, "closed", changed)
            }
        };
        if global.json {
            output::json(&json!({ "breaker": key, "state": state, "changed": changed }))?;
        } else if changed {
            eprintln!("the breaker {key} is {state}");
        } else {
            eprintln!("the breaker {key} was {state}");
        }
        Ok(if changed { Exit::Done } else { Exit::NothingFound })
    }
}
