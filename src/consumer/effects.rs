//! The transactional handler of a leased message: its effects and its completion commit together.
//!
//! The completion names id, attempt and owner, so a consumer that lost its lease cannot commit: its effects roll back.
//! A commit whose answer was lost is asked for before anything is run again.

use std::time::Duration;

use deadpool_postgres::Transaction;
use tokio::time::Instant;

use super::{context::Context, running::Ran, settle::were_settled};
use crate::{
    backoff,
    error::{Result, is_conflict},
    handler::{HandlerResult, caught, chain},
    message::Delivery,
    outcome::Outcome,
    store::Claim,
};

/// Long enough for who was in the way to be through.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

/// Runs it, in a transaction of its own. Returns how long the handler took, too.
pub(super) async fn run(context: &Context, delivery: &Delivery) -> (Ran, Duration) {
    let mut took = Duration::ZERO;
    let ran = match run_and_commit(context, delivery, &mut took).await {
        Ok(ran) => ran,
        Err(error) if is_conflict(&error) => Ran::Outcome(after_a_conflict()),
        Err(error) => Ran::Outcome(Outcome::retry(format!("the transaction failed: {}", chain(&error)))),
    };
    (ran, took)
}

/// # Errors
/// Nothing was done, as far as the database can say.
async fn run_and_commit(context: &Context, delivery: &Delivery, took: &mut Duration) -> Result<Ran> {
    // Whatever ends this early closes the connection, and with it the transaction.
    let mut client = context.store.busy().await?;
    let tx = context.store.within_deadline("begin", client.build_handlers_transaction().start()).await?;
    let began = Instant::now();
    let outcome = outcome(context, delivery, &tx).await;
    *took = began.elapsed();
    let claim = [Claim::of(delivery)];
    let undone = match outcome {
        Outcome::Done => {
            let completing = context.store.complete_in(&tx, &delivery.owner, &claim);
            let completed = context.store.within_deadline("complete messages", completing).await?;
            (completed == 0).then_some(Ran::LeaseLost)
        }
        outcome => Some(Ran::Outcome(outcome)),
    };
    if let Some(undone) = undone {
        if context.store.within_deadline("roll back", tx.rollback()).await.is_ok() {
            client.answered();
        }
        return Ok(undone);
    }
    match context.committing(1, context.store.within_deadline("commit", tx.commit())).await {
        Ok(()) => client.answered(),
        Err(error) => {
            // The commit may have happened. Nothing is cancelled and nothing is run again before the database has said.
            drop(client);
            if !were_settled(context, &claim).await? {
                return Err(error);
            }
        }
    }
    Ok(Ran::Completed)
}

/// Runs a transactional handler to its outcome, for telemetry, too.
pub(super) async fn outcome(context: &Context, delivery: &Delivery, tx: &Transaction<'_>) -> Outcome {
    let handling = async {
        match (delivery.refusal(), context.registry.tx(&delivery.record_type)) {
            (Some(refusal), _) => refusal,
            (None, Some(handler)) => {
                caught(handled(handler.handle(delivery.clone(), tx)), context.config.handler_timeout).await
            }
            (None, None) => Outcome::retry("its handler is not transactional"),
        }
    };
    context.processing(delivery).run(handling).await
}

/// What a handler says; a conflict of its transaction with others says nothing about the message.
async fn handled(handling: impl Future<Output = HandlerResult>) -> HandlerResult {
    handling.await.or_else(|error| if is_conflict(&*error) { Ok(after_a_conflict()) } else { Err(error) })
}

/// A transaction that was undone because of others is run again soon, at no cost for the message.
pub(super) fn after_a_conflict() -> Outcome {
    Outcome::snooze(backoff::delay(CONFLICT_PAUSE, CONFLICT_PAUSE, 0, rand::random()))
}
