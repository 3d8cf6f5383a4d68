//! Transactional handlers: effects and completion in one transaction.
//!
//! The transaction names id, attempt and owner when it completes, so a consumer that lost its lease cannot commit: its
//! effects roll back. A commit whose answer was lost is asked for before anything is run again.

use std::{sync::Arc, time::Duration};

use tracing::{debug, warn};

use super::run::Context;
use crate::{
    backoff,
    error::Result,
    handler::{TxHandler, caught},
    message::{Delivery, MessageId},
    outcome::Outcome,
    store::Verdict,
};

const RETRY_BASE: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// Runs deliveries of transactional handlers; verdicts in the order given.
pub(super) async fn run(context: &Context, deliveries: Vec<Delivery>) -> Vec<Verdict> {
    if deliveries.len() > 1 {
        match batch(context, &deliveries).await {
            Ok(Some(verdicts)) => return verdicts,
            Ok(None) => debug!(count = deliveries.len(), "a batch was rolled back; its messages run one by one"),
            Err(error) => {
                warn!(target_app = %context.target, count = deliveries.len(), ?error, "a batch failed; its messages run one by one");
            }
        }
    }
    let mut verdicts = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        let verdict = match batch(context, std::slice::from_ref(&delivery)).await {
            Ok(Some(mut verdicts)) => verdicts.pop().unwrap_or(Verdict::LeaseLost),
            Ok(None) => Verdict::LeaseLost,
            Err(error) => {
                Verdict::Outcome(Outcome::retry(format!("the transaction failed: {}", crate::handler::chain(&error))))
            }
        };
        verdicts.push(verdict);
    }
    verdicts
}

/// One transaction for all of them. `None`: rolled back because one of several did not end well, or (for a single one)
/// because the lease was lost.
async fn batch(context: &Context, deliveries: &[Delivery]) -> Result<Option<Vec<Verdict>>> {
    // Whatever ends this early closes the connection, and with it the transaction.
    let mut client = context.store.busy().await?;
    let tx = context.store.within_deadline("begin", client.build_transaction().start()).await?;
    for delivery in deliveries {
        let Some(handler) = context.registry.tx(&delivery.record_type) else { continue };
        let handler: &Arc<dyn TxHandler> = handler;
        let handling = caught(handler.handle(delivery.clone(), &tx), context.config.handler_timeout);
        let outcome = context.processing(delivery).run(handling).await;
        if outcome != Outcome::Done {
            if context.store.within_deadline("roll back", tx.rollback()).await.is_ok() {
                client.answered();
            }
            return Ok((deliveries.len() == 1).then(|| vec![Verdict::Outcome(outcome)]));
        }
    }
    let ids: Vec<MessageId> = deliveries.iter().map(|delivery| delivery.id).collect();
    let attempts: Vec<i32> = deliveries.iter().map(|delivery| delivery.attempt).collect();
    let owner = &deliveries[0].owner;
    let completing = context.store.complete_in(&tx, owner, &ids, &attempts);
    if context.store.within_deadline("complete messages", completing).await? < deliveries.len() {
        if context.store.within_deadline("roll back", tx.rollback()).await.is_ok() {
            client.answered();
        }
        return Ok(None);
    }
    let commit = context.store.within_deadline("commit", tx.commit());
    match context.committing(deliveries.len(), commit).await {
        Ok(()) => client.answered(),
        Err(error) => {
            // The commit may have happened. Nothing is cancelled and nothing is run again before the database has said.
            drop(client);
            if !were_settled(context, &ids, &attempts).await? {
                return Err(error);
            }
        }
    }
    Ok(Some(vec![Verdict::Completed; deliveries.len()]))
}

/// Asks until the database answers; the watchdog of handlers bounds it.
pub(super) async fn were_settled(context: &Context, ids: &[MessageId], attempts: &[i32]) -> Result<bool> {
    let mut failures = 0u32;
    loop {
        match context.store.was_settled(ids, attempts).await {
            Ok(settled) => return Ok(settled.len() == ids.len()),
            Err(error) if error.is_transient() => {
                debug!(?error, "asking whether a commit happened; trying again until the database says");
                failures += 1;
                tokio::time::sleep(backoff::delay(RETRY_BASE, RETRY_CAP, failures, rand::random())).await;
            }
            Err(error) => return Err(error),
        }
    }
}
