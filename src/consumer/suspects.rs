//! Messages that were in flight when a consumer died are run one after the other in each process, so that the one that
//! kills its consumer is never beside another suspect, and the innocent ones are cleared.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use tracing::{debug, info, warn};

use super::{
    context::Context,
    handling, opening,
    running::{GRACE, Ran, did_not_stop},
    settle::settle_until_done,
};
use crate::{
    error::Result,
    message::{Delivery, Found},
    store::{Claim, Settlement, Verdict},
};

/// Looks for suspects of the target and runs them until none is left. Does nothing, cheaply, when there are none.
pub(super) async fn run_alone(context: Arc<Context>, owner: Arc<str>, stopping: watch::Receiver<Option<Duration>>) {
    if let Err(error) = run(context, owner, stopping).await {
        debug!(?error, "suspects could not be looked for; the next sweep tries again");
    }
}

async fn run(context: Arc<Context>, owner: Arc<str>, mut stopping: watch::Receiver<Option<Duration>>) -> Result<()> {
    while stopping.borrow().is_none() && context.store.has_suspects(&context.request(&owner)).await? {
        let alone = context.process.isolation().alone().await;
        if context.allowance.take(1) == 0 {
            return Ok(());
        }
        let request = context.request(&owner);
        let claim = context.process.in_hand().claim(context.store.claim_suspect(&request));
        let claimed = context.claiming(Found::Sweep, claim, |claimed| Some(claimed.len())).await;
        let claimed = claimed.inspect_err(|_| context.allowance.put_back(1))?;
        let Some(delivery) = claimed.into_iter().next() else {
            context.allowance.put_back(1);
            drop(alone);
            // What the target's rate keeps back is not rung for when it does not any more.
            match context.store.opens_in(&context.target).await? {
                Some(opens_in) if !opens_in.is_zero() => {
                    tokio::select! {
                        () = opening::opens(opens_in) => continue,
                        _ = stopping.changed() => return Ok(()),
                    }
                }
                _ => return Ok(()),
            }
        };
        let claim = Claim::of(&delivery);
        let settling = context.process.in_hand().settling(vec![claim]);
        let (id, attempt) = (claim.id(), claim.attempt());
        info!(id, attempt, target_app = %context.target, "running a suspect: its last consumer died");
        let ran = tokio::select! {
            ran = run_to_its_end(&context, delivery) => ran,
            () = context.process.in_hand().lost(claim) => {
                let target_app = &context.target;
                warn!(id, attempt, %target_app, "the handler of a suspect is cancelled: its message was taken away or is gone");
                context.store.telemetry().lease_lost(&context.target, 1);
                Some(Ran::LeaseLost)
            }
        };
        drop(alone);
        let verdict = match ran {
            Some(Ran::Completed | Ran::LeaseLost) => None,
            Some(Ran::Outcome(outcome)) => Some(Verdict::Outcome(outcome)),
            None => Some(Verdict::Release),
        };
        if let Some(verdict) = verdict {
            settle_until_done(context.clone(), owner.clone(), vec![Settlement { claim, verdict }]).await?;
        }
        settling.done();
    }
    Ok(())
}

/// Runs the handler, whose timeout is kept here; nothing: it panicked through, or was cancelled.
async fn run_to_its_end(context: &Arc<Context>, delivery: Delivery) -> Option<Ran> {
    let running = context.clone();
    // A task of its own, so that a handler that blocks its thread blocks neither this loop nor, past its timeout,
    // the other handlers of the process. It ends with this future.
    let mut handler = JoinSet::new();
    handler.spawn(async move { handling::run(&running, delivery).await.0 });
    match context.config.handler_timeout {
        Some(limit) => match tokio::time::timeout(limit + GRACE, handler.join_next()).await {
            Ok(ended) => ended.and_then(|ended| ended.ok()),
            Err(_) => Some(Ran::Outcome(did_not_stop(limit))),
        },
        None => handler.join_next().await.and_then(|ended| ended.ok()),
    }
}
