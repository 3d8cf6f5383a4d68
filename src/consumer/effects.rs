//! Transactional handlers: effects and completion in one transaction.
//!
//! The transaction names id, attempt and owner when it completes, so a consumer that lost its lease cannot commit: its
//! effects roll back. A commit whose answer was lost is asked for before anything is run again.

use std::sync::Arc;

use tracing::{debug, warn};

use super::run::Context;
use crate::{
    error::{Error, Result},
    handler::{TxHandler, caught},
    message::{Delivery, MessageId},
    outcome::Outcome,
    store::{Store, Verdict},
};

/// Runs deliveries of transactional handlers; verdicts in the order given.
pub(super) async fn run(context: &Context, deliveries: Vec<Delivery>) -> Vec<Verdict> {
    if deliveries.len() > 1 {
        match batch(context, &deliveries).await {
            Ok(Some(verdicts)) => return verdicts,
            Ok(None) => debug!(count = deliveries.len(), "a batch was rolled back; its messages run one by one"),
            Err(error) => warn!(count = deliveries.len(), ?error, "a batch failed; its messages run one by one"),
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
    let mut client = context.store.pool().get().await?;
    let tx = client.build_transaction().start().await?;
    for delivery in deliveries {
        let Some(handler) = context.registry.tx(&delivery.record_type) else { continue };
        let handler: &Arc<dyn TxHandler> = handler;
        let outcome = caught(handler.handle(delivery.clone(), &tx), context.config.handler_timeout).await;
        if outcome != Outcome::Done {
            tx.rollback().await?;
            return Ok((deliveries.len() == 1).then(|| vec![Verdict::Outcome(outcome)]));
        }
    }
    let ids: Vec<MessageId> = deliveries.iter().map(|delivery| delivery.id).collect();
    let attempts: Vec<i32> = deliveries.iter().map(|delivery| delivery.attempt).collect();
    let owner = &deliveries[0].owner;
    if Store::complete_in(&tx, owner, &ids, &attempts).await? < deliveries.len() {
        tx.rollback().await?;
        return Ok(None);
    }
    if let Err(error) = tx.commit().await.map_err(Error::from) {
        // The commit may have happened. Nothing is cancelled and nothing is run again before the database has said.
        drop(client);
        if context.store.was_settled(&ids, &attempts).await?.len() < deliveries.len() {
            return Err(error);
        }
    }
    Ok(Some(vec![Verdict::Completed; deliveries.len()]))
}
