//! One transaction for a batch of messages with transactional handlers: their effects and their completion commit
//! together.
//!
//! The completion names id, attempt and owner, so a consumer that lost its lease cannot commit: its effects roll back.
//! A commit whose answer was lost is asked for before anything is run again.

use std::{borrow::Cow, time::Duration};

use deadpool_postgres::Transaction;
use tokio::time::Instant;
use tracing::debug;

use super::{context::Context, hold::Hold};
use crate::{
    backoff,
    error::{Result, is_conflict},
    handler::{HandlerResult, caught},
    message::Delivery,
    outage::Outage,
    outcome::Outcome,
    store::Claim,
};

const RETRY_BASE: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_secs(2);
/// Long enough for who was in the way to be through.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

/// Where the messages of a transaction come from.
pub(super) enum Source<'a> {
    /// They are leased, at least one.
    Leased(&'a [Delivery]),
    /// The transaction locks them itself.
    Held(&'a mut Hold),
}

/// Why nothing was done.
pub(super) enum Undone {
    /// A handler ended like that and not well.
    Handler(Outcome),
    /// The messages are not this consumer's, or may not be held.
    NotOurs,
}

/// Takes the messages, handles them in their order, completes them, commits; rolls back at the first that does not end
/// well. Returns how many messages were completed.
///
/// # Errors
/// Nothing was done, as far as the database can say.
pub(super) async fn run(context: &Context, source: Source<'_>) -> Result<Result<usize, Undone>> {
    // Whatever ends this early closes the connection, and with it the transaction.
    let mut client = context.store.busy().await?;
    let tx = context.store.within_deadline("begin", client.build_handlers_transaction().start()).await?;
    let completed = match complete(context, &tx, source).await? {
        Ok(completed) => completed,
        Err(undone) => {
            if context.store.within_deadline("roll back", tx.rollback()).await.is_ok() {
                client.answered();
            }
            return Ok(Err(undone));
        }
    };
    let commit = context.store.within_deadline("commit", tx.commit());
    match context.committing(completed.len(), commit).await {
        Ok(()) => client.answered(),
        Err(error) => {
            // The commit may have happened. Nothing is cancelled and nothing is run again before the database has said.
            drop(client);
            if !were_settled(context, &completed).await? {
                return Err(error);
            }
        }
    }
    Ok(Ok(completed.len()))
}

/// All of it but the end of the transaction.
async fn complete(
    context: &Context,
    tx: &Transaction<'_>,
    mut source: Source<'_>,
) -> Result<Result<Vec<Claim>, Undone>> {
    let (deliveries, until) = match &mut source {
        Source::Leased(deliveries) => (Cow::Borrowed(*deliveries), None),
        Source::Held(hold) => match hold.take(context, tx).await? {
            Some((deliveries, until)) => (Cow::Owned(deliveries), Some(until)),
            None => return Ok(Err(Undone::NotOurs)),
        },
    };
    let done = match handle(context, tx, &deliveries, until).await {
        Ok(done) => done,
        Err(outcome) => return Ok(Err(Undone::Handler(outcome))),
    };
    let Some(owner) = deliveries.first().map(|delivery| &delivery.owner).filter(|_| !done.is_empty()) else {
        return Ok(Ok(done));
    };
    let completing = async {
        match source {
            Source::Leased(_) => context.store.complete_in(tx, owner, &done).await,
            Source::Held(_) => context.store.complete_held_in(tx, owner, &done).await,
        }
    };
    let completed = context.store.within_deadline("complete messages", completing).await?;
    Ok(if completed < done.len() { Err(Undone::NotOurs) } else { Ok(done) })
}

/// Runs the handlers one after the other. What is not begun by `until` is left as it was.
async fn handle(
    context: &Context,
    tx: &Transaction<'_>,
    deliveries: &[Delivery],
    until: Option<Instant>,
) -> Result<Vec<Claim>, Outcome> {
    let mut done = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        let Some(handler) = context.registry.tx(&delivery.record_type) else { continue };
        let limit = [left, context.config.handler_timeout].into_iter().flatten().min();
        let handling = async {
            match delivery.refusal() {
                Some(refusal) => refusal,
                None => caught(handled(handler.handle(delivery.clone(), tx)), limit).await,
            }
        };
        let outcome = context.processing(delivery).run(handling).await;
        if outcome != Outcome::Done {
            debug!(id = delivery.id, "a transaction is rolled back: a handler did not end well");
            return Err(outcome);
        }
        done.push(Claim::of(delivery));
    }
    Ok(done)
}

/// What a handler says; a conflict of its transaction with others says nothing about the message.
async fn handled(handling: impl Future<Output = HandlerResult>) -> HandlerResult {
    handling.await.or_else(|error| if is_conflict(&*error) { Ok(after_a_conflict()) } else { Err(error) })
}

/// A transaction that was undone because of others is run again soon, at no cost for the message.
pub(super) fn after_a_conflict() -> Outcome {
    Outcome::snooze(backoff::delay(CONFLICT_PAUSE, CONFLICT_PAUSE, 0, rand::random()))
}

/// Asks until the database answers; the watchdog of handlers bounds it.
pub(super) async fn were_settled(context: &Context, claims: &[Claim]) -> Result<bool> {
    let outage = Outage::of_one_call("asking whether a commit happened; trying again until the database says");
    let ask = || context.store.were_settled(claims);
    let settled = outage.pauses(RETRY_BASE, RETRY_CAP).repeat(|error, _| error.is_transient(), ask).await?;
    Ok(settled == claims.len())
}
