//! Messages that were in flight when a consumer died are run alone in their process, one after the other, so that the
//! one that kills its consumer kills nobody beside it and the innocent ones are cleared.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::{debug, info};

use super::{handling::run_handlers, run::Context, settle::settle_until_done};
use crate::{
    error::Result,
    store::{Settlement, Verdict},
};

/// Looks for suspects of the target and runs them until none is left. Does nothing, cheaply, when there are none.
pub(super) async fn run_alone(context: Arc<Context>, owner: Arc<str>, stopping: watch::Receiver<bool>) {
    if let Err(error) = run(context, owner, stopping).await {
        debug!(?error, "suspects could not be looked for; the next sweep tries again");
    }
}

async fn run(context: Arc<Context>, owner: Arc<str>, stopping: watch::Receiver<bool>) -> Result<()> {
    while !*stopping.borrow() && context.store.has_suspects(&context.request(&owner)).await? {
        // Waits until every running handler of this process is done; new ones wait meanwhile.
        let alone = context.process.alone().write_owned().await;
        let request = context.request(&owner);
        let claim = async { Ok(context.store.claim_suspect(&request).await?.into_iter().collect()) };
        let claimed = context.process.held().claim(&context.store, &owner, claim).await?.pop();
        let Some(delivery) = claimed else { return Ok(()) };
        let (id, attempt) = (delivery.id, delivery.attempt);
        info!(id, attempt, target_app = %context.target, "running a message alone: its last consumer died");
        let running = context.clone();
        // A task of its own, so that a handler that blocks its thread does not block this loop.
        let mut handler = tokio::task::JoinSet::new();
        handler.spawn(async move { run_handlers(&running, vec![delivery]).await });
        let verdict = handler.join_next().await.and_then(|ended| ended.ok()?.pop()).unwrap_or(Verdict::Release);
        drop(alone);
        if matches!(verdict, Verdict::Completed | Verdict::LeaseLost) {
            context.process.held().forget([id]);
            continue;
        }
        settle_until_done(context.clone(), owner.clone(), vec![Settlement { id, attempt, verdict }]).await;
    }
    Ok(())
}
