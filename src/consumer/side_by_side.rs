//! A batch of plain handlers whose messages a transaction holds. They run side by side; one statement completes all
//! that end well, with nothing written before it.
//!
//! A handler that is ready at once is run where it is, without a task. What ends otherwise than well, or not before the
//! transaction is to be over, is leased in its last statement: it is settled, and goes on, as if it had been claimed.
//! So nobody's handler is run again because of another's. A process that dies gives all of it back at once, with its
//! connection.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use super::{
    batch::were_settled,
    context::Context,
    handling::Handling,
    held_batch::{HeldBatch, Kept},
    hold::HeldLook,
    looking::Look,
    observed::Observed,
};
use crate::{
    error::Result,
    message::Delivery,
    outcome::Outcome,
    store::{Claim, HeldTx, Looked, Ranges},
};

/// Holds up to `limit` messages and handles them, for `cap` at most. Tells what it found before.
pub(super) async fn run(
    context: Arc<Context>,
    owner: Arc<str>,
    (look, ranges): (Look, Option<Ranges>),
    (limit, cap): (usize, Duration),
    tell: mpsc::UnboundedSender<HeldLook>,
) -> HeldBatch {
    let asked = Instant::now();
    let mut ended = HeldBatch::refused(look, limit);
    let request = context.request(&owner);
    let holding = context.store.hold(&request, limit, ranges.as_ref(), look.why(), cap);
    let count = |held: &Option<(HeldTx, Looked)>| held.as_ref().map_or(0, |(_, looked)| looked.deliveries.len());
    let (tx, looked) = match context.claiming(look.why(), holding, count).await {
        Ok(Some(held)) => held,
        Ok(None) => return ended,
        Err(error) => {
            warn!(target_app = %context.target, ?error, "messages could not be held; they are taken with leases");
            return ended;
        }
    };
    ended.took = looked.deliveries.len();
    let full = ended.took >= limit || request.may_be_cut(&looked.deliveries);
    // The loop is gone only when the process is being torn down.
    let _ = tell.send(HeldLook { look, observed: Observed::of(&looked), full, took: asked.elapsed() });
    if looked.deliveries.is_empty() {
        tx.roll_back().await;
        return HeldBatch { refused: false, duration: asked.elapsed(), ..ended };
    }
    let mut batch = Batch::default();
    batch.handle(&context, looked.deliveries, Instant::now() + cap).await;
    match batch.settle(&context, &owner, tx).await {
        Ok((completed, kept)) => {
            (ended.completed, ended.kept, ended.refused) = (completed, kept, false);
            ended.handlers = batch.handlers;
        }
        Err(error) => {
            let (target_app, count) = (&context.target, ended.took);
            warn!(%target_app, count, ?error, "a transaction that held messages failed; they are taken with leases");
        }
    }
    HeldBatch { duration: asked.elapsed(), ..ended }
}

/// What became of the messages so far.
#[derive(Default)]
struct Batch {
    done: Vec<Claim>,
    otherwise: Vec<(Claim, Outcome)>,
    running: FuturesUnordered<Handling>,
    /// How long the handlers that ended took, together.
    handlers: Duration,
}

impl Batch {
    /// Runs handlers until all have ended, or the time has come; those that have not begun by then are left as they
    /// were.
    async fn handle(&mut self, context: &Arc<Context>, deliveries: Vec<Delivery>, until: Instant) {
        let mut left = deliveries.into_iter().peekable();
        while Instant::now() < until {
            if left.peek().is_some()
                && let Ok(slot) = context.slots.clone().try_acquire_owned()
                && let Some(delivery) = left.next()
            {
                let mut handling = Handling::new(context.clone(), delivery, slot);
                match poll_fn(|cx| Poll::Ready(handling.poll_unpin(cx))).await {
                    Poll::Ready(ended) => self.ended(ended),
                    Poll::Pending => self.running.push(handling),
                }
                continue;
            }
            if left.peek().is_none() && self.running.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some(ended) = self.running.next() => self.ended(ended),
                // Given back at once: whoever comes first may have it.
                _ = context.slots.acquire(), if left.peek().is_some() => {}
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }

    fn ended(&mut self, (claim, took, outcome): (Claim, Duration, Outcome)) {
        self.handlers += took;
        match outcome {
            Outcome::Done => self.done.push(claim),
            outcome => self.otherwise.push((claim, outcome)),
        }
    }

    /// Ends the transaction. Returns how many messages were completed, and what is leased now.
    ///
    /// # Errors
    /// Nothing was done, as far as the database can say.
    async fn settle(&mut self, context: &Context, owner: &str, tx: HeldTx) -> Result<(usize, Vec<Kept>)> {
        let others = self.otherwise.iter().map(|(claim, _)| *claim);
        let others: Vec<Claim> = others.chain(self.running.iter().map(|handling| handling.claim())).collect();
        let done = self.done.len();
        let (mut completed, mut leased) = (0, Vec::new());
        let settle = async {
            let ended = async {
                let ended = tx.settle(owner, &self.done, &others).await?;
                completed = ended.completed;
                Ok(ended.leased)
            };
            leased = match others.is_empty() {
                true => ended.await?,
                false => context.process.in_hand().claim(ended).await?,
            };
            Ok(done - completed)
        };
        if let Err(error) = context.settling(done, settle).await {
            // The commit may have happened. Nothing is run again before the database has said.
            if done == 0 || !were_settled(context, &self.done).await? {
                return Err(error);
            }
            return Ok((done, Vec::new()));
        }
        let otherwise = self.otherwise.drain(..).map(|(claim, outcome)| Kept::Ended(claim, outcome));
        let running = std::mem::take(&mut self.running).into_iter().map(Kept::Running);
        let is_leased = |kept: &Kept| leased.contains(&kept.claim());
        Ok((completed, otherwise.chain(running).filter(is_leased).collect()))
    }
}
