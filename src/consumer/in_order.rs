//! Transactional handlers of a batch: one after the other, in the transaction that holds their messages.
//!
//! How one of them ends costs its own message alone, because there is a savepoint in front of each. It is sent together
//! with the first statement of the handler and not waited for. A handler that was ready at once has sent nothing, so the
//! next one needs no savepoint of its own. A handler may say that all is well and leave a transaction behind that has
//! failed: the answer to the next savepoint tells.

use std::{pin::pin, task::Poll, time::Duration};

use deadpool_postgres::Transaction;
use futures::poll;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use super::{context::Context, effects};
use crate::{
    error::Result,
    message::Delivery,
    outcome::Outcome,
    store::{Claim, Savepoint},
};

/// A handler that was ready at once, but not sooner than this, may have waited for the database and blocked its thread.
const ROUND_TRIP_MIN: Duration = Duration::from_micros(10);

/// Most savepoints of one transaction. Where more than 64 of them have written anything, PostgreSQL has to look into a
/// table of transactions for every row that any session meets.
pub(super) const SAVEPOINTS_MAX: usize = 60;

/// What became of the messages.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) done: Vec<Claim>,
    pub(super) otherwise: Vec<(Claim, Outcome)>,
    /// Their handlers were dropped because the time had come, and what these did is undone.
    pub(super) cut: Vec<Delivery>,
    /// How many handlers that were, and how long they took, together.
    pub(super) handlers: (usize, Duration),
    pub(super) savepoints: usize,
}

/// Runs handlers until all have ended, or the time has come; those that have not begun by then are left as they were.
/// `alone`: the transaction holds no other message than the only one of these.
///
/// # Errors
/// The transaction cannot go on.
pub(super) async fn run(
    context: &Context,
    tx: &Transaction<'_>,
    deliveries: Vec<Delivery>,
    (until, cap): (Instant, Duration),
    alone: bool,
) -> Result<Ended> {
    // Not before a handler is dropped that waits for it; then what it did is to be undone soon.
    let savepoint = context.store.savepoint(tx, cap * 2);
    let mut in_order =
        InOrder { context, tx, until, savepoint, is_clean: false, unsure: None, ended: Ended::default() };
    for delivery in deliveries {
        let Some(_slot) = in_order.slot().await else { break };
        in_order.handle(delivery).await?;
    }
    in_order.finish(alone).await
}

struct InOrder<'a> {
    context: &'a Context,
    tx: &'a Transaction<'a>,
    until: Instant,
    savepoint: Savepoint<'a>,
    /// Nothing was done since the savepoint.
    is_clean: bool,
    /// Done as far as its handler knows: the answer to the savepoint after it is still to come.
    unsure: Option<Claim>,
    ended: Ended,
}

impl InOrder<'_> {
    /// The right to run one more handler; `None`: not in this transaction.
    async fn slot(&mut self) -> Option<OwnedSemaphorePermit> {
        if Instant::now() >= self.until || self.savepoint.count() >= SAVEPOINTS_MAX {
            return None;
        }
        let slots = self.context.slots.clone();
        match slots.clone().try_acquire_owned() {
            Ok(slot) => Some(slot),
            Err(_) => timeout_at(self.until, slots.acquire_owned()).await.ok()?.ok(),
        }
    }

    async fn handle(&mut self, delivery: Delivery) -> Result<()> {
        loop {
            if !self.is_clean {
                self.savepoint.set().await;
                self.is_clean = true;
            }
            let began = Instant::now();
            let (outcome, at_once) = self.run(&delivery).await;
            let took = began.elapsed();
            if !at_once || took >= ROUND_TRIP_MIN {
                self.is_clean = false;
                if !self.is_well().await? {
                    // The one before left it a transaction in which nothing can be done: once more.
                    continue;
                }
            }
            self.ended.handlers.0 += 1;
            self.ended.handlers.1 += took;
            return self.ended(delivery, outcome).await;
        }
    }

    /// Runs a handler; no outcome: it was dropped. And whether it was ready at once.
    async fn run(&mut self, delivery: &Delivery) -> (Option<Outcome>, bool) {
        let (until, handling) = (self.until, effects::outcome(self.context, delivery, self.tx));
        let mut handling = pin!(handling);
        match poll!(handling.as_mut()) {
            Poll::Ready(outcome) => (Some(outcome), true),
            Poll::Pending => (timeout_at(until, handling).await.ok(), false),
        }
    }

    /// Whether the transaction was when the savepoint was set. If not, it is again now, without what the handler before
    /// the savepoint did.
    async fn is_well(&mut self) -> Result<bool> {
        let is_well = self.savepoint.was_well().await?;
        if !is_well {
            self.undo().await?;
        }
        if let Some(claim) = self.unsure.take() {
            match is_well {
                true => self.ended.done.push(claim),
                false => self.ended.otherwise.push((claim, has_failed())),
            }
        }
        Ok(is_well)
    }

    async fn undo(&mut self) -> Result<()> {
        self.savepoint.undo().await?;
        self.is_clean = true;
        Ok(())
    }

    async fn ended(&mut self, delivery: Delivery, outcome: Option<Outcome>) -> Result<()> {
        let claim = Claim::of(&delivery);
        match outcome {
            Some(Outcome::Done) if self.is_clean => self.ended.done.push(claim),
            Some(Outcome::Done) => self.unsure = Some(claim),
            outcome => {
                if !self.is_clean {
                    self.undo().await?;
                }
                match outcome {
                    Some(outcome) => self.ended.otherwise.push((claim, outcome)),
                    None => self.ended.cut.push(delivery),
                }
            }
        }
        Ok(())
    }

    async fn finish(mut self, alone: bool) -> Result<Ended> {
        self.ended.savepoints = self.savepoint.count();
        // Where there is nobody else whom it could take with it, the completion tells whether it is well.
        self.savepoint.release().await;
        if self.unsure.is_some() && !alone && !self.is_well().await? {
            self.savepoint.release().await;
        }
        self.ended.done.extend(self.unsure.take());
        Ok(self.ended)
    }
}

/// What becomes of a message whose handler has said that all is well, in a transaction that has failed.
fn has_failed() -> Outcome {
    Outcome::retry("the handler ended well, but a statement of it had failed, and with it the transaction")
}
