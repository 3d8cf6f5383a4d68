//! `doorbell explain`: why a message is not running.

use clap::Args;
use doorbell::{MessageId, operate::Explanation};
use serde_json::{Value, json};

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Say why a message is not running, and what to do about it
///
/// The first line is the cause; further ones would hold the message when that is gone. Looks at the message, its target's
/// pause, breaker and limits, the consumers that are alive and what they accept, and its place in the queue. Changes nothing.
/// Exit code 3 when there is no such message, or none that this role may see.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell explain 42
  doorbell explain 42 --json | jq -r '.causes[0].code'

JSON: {\"id\", \"causes\": [{\"code\", \"sentence\", \"fix\", \"details\"}]}. Codes: not_found, gone, archived, completed, \
failed, cancelled, scheduled, due, processing, owner_dead, foreign_claim, held, locked, paused, breaker_open, \
breaker_half_open, in_flight_limit, rate_limited, no_consumer, type_not_accepted, suspect, busy, queued, ready, set_aside, \
key_busy, key_waits, key_blocked, key_type, key_turn, not_visible, expired, expiring, expires, coalesced.")]
pub(crate) struct Explain {
    /// The message
    #[arg(value_name = "ID")]
    id: MessageId,
}

impl Explain {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let causes = global.database.broker().await?.operator().explain(self.id).await?;
        if global.json {
            let causes: Vec<Value> = causes.iter().map(cause_json).collect();
            output::json(&json!({ "id": self.id, "causes": causes }))?;
        } else {
            for (at, cause) in causes.iter().enumerate() {
                let before = if at == 0 { format!("message {}", self.id) } else { "and then".to_owned() };
                output::line(format_args!("{before}: {}", output::printable(&cause.sentence)))?;
                if let Some(fix) = &cause.fix {
                    output::line(format_args!("  to change that: {}", output::printable(fix)))?;
                }
            }
        }
        let there = causes.first().is_some_and(|cause| cause.code != "not_found" && cause.code != "not_visible");
        Ok(if there { Exit::Done } else { Exit::NothingFound })
    }
}

fn cause_json(cause: &Explanation) -> Value {
    let details: Value = serde_json::from_str(&cause.details).unwrap_or_default();
    json!({ "code": cause.code, "sentence": cause.sentence, "fix": cause.fix, "details": details })
}
