//! Settling a batch until it is done.

use std::{sync::Arc, time::Duration};

use tracing::warn;

use super::context::Context;
use crate::{
    error::{Error, ErrorKind, Result},
    outage::Outage,
    outcome::Outcome,
    store::{Claim, Settlement, Store, Verdict},
};

const RETRY_BASE: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// Settles a batch, trying again until it is done or the lease is lost. An answer that was lost with its connection is
/// asked for: the settle may have happened.
///
/// # Errors
/// That the role may not settle any more. The messages are rescued from this process when it is gone.
pub(super) async fn settle_until_done(
    context: Arc<Context>,
    owner: Arc<str>,
    mut settlements: Vec<Settlement>,
) -> Result<()> {
    let mut outage = Outage::new("settling failed; trying again until it works", "settling again")
        .for_target(&context.target)
        .pauses(RETRY_BASE, RETRY_CAP);
    let settling = context.process.in_hand().settling(claims(&settlements));
    while !settlements.is_empty() {
        let settle = settle_once(&context.store, &owner, &settlements, outage.failures() > 0);
        match context.store.telemetry().settling(&context.target, settlements.len(), settle).await {
            Ok(lost) => {
                if lost > 0 {
                    warn!(target_app = %context.target, lost, owner = %owner, "settles came too late: the lease was lost");
                }
                outage.over();
                settling.done();
                return Ok(());
            }
            Err(error) => {
                let pause = outage.failed(&error);
                if error.kind() == ErrorKind::Forbidden {
                    return Err(error);
                }
                if outage.failures() > 3 && !error.is_transient() {
                    // Something about the outcomes themselves: keep the messages moving with a reason that can be
                    // stored.
                    plain_reasons(&mut settlements, &error);
                }
                tokio::time::sleep(pause).await;
                if *context.process.owners().borrow() != owner {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// One round. Returns how many had lost their lease.
async fn settle_once(store: &Store, owner: &str, settlements: &[Settlement], unsure: bool) -> Result<usize> {
    let mut settled = store.settle(owner, settlements).await?;
    if settled < settlements.len() && unsure {
        settled = store.were_settled(&claims(settlements)).await?;
    }
    Ok(settlements.len().saturating_sub(settled))
}

/// Asks whether a commit happened whose answer was lost, until the database answers; the watchdog of handlers bounds it.
pub(super) async fn were_settled(context: &Context, claims: &[Claim]) -> Result<bool> {
    let outage = Outage::of_one_call("asking whether a commit happened; trying again until the database says");
    let ask = || context.store.were_settled(claims);
    let settled = outage.pauses(RETRY_BASE, RETRY_CAP).repeat(|error, _| error.is_transient(), ask).await?;
    Ok(settled == claims.len())
}

fn claims(settlements: &[Settlement]) -> Vec<Claim> {
    settlements.iter().map(|settlement| settlement.claim).collect()
}

fn plain_reasons(settlements: &mut [Settlement], error: &Error) {
    for settlement in settlements {
        if let Verdict::Outcome(Outcome::Retry { reason, .. } | Outcome::Reject { reason }) = &mut settlement.verdict {
            *reason = format!("failed; its own reason could not be stored ({error})");
        }
    }
}
