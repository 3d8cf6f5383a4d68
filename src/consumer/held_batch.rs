//! A batch of messages that a transaction holds: locked by it, handled, and completed by its last statement.
//!
//! Nothing is written when they are taken and one row version when they are done, instead of two. Plain handlers run side
//! by side, and one that is ready at once is run where it is, without a task; transactional ones work in the transaction
//! itself, one after the other (`in_order.rs`). What ends otherwise than well, or not before the transaction is to be over,
//! is leased in its last statement: it is settled, and goes on, as if it had been claimed. So nobody's handler is run again
//! because of another's. A process that dies gives all of it back at once, with its connection. The price is a transaction
//! that is open for as long, which holds back vacuum.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use super::{context::Context, handling::Handling, in_order, looking::Look, observed::Observed, settle::were_settled};
use crate::{
    error::Result,
    message::Delivery,
    outcome::Outcome,
    store::{Claim, HeldTx, Looked, Ranges},
};

/// What a batch found, told before it is handled, so that the next one can be fetched meanwhile.
pub(super) struct HeldLook {
    pub(super) look: Look,
    pub(super) observed: Observed,
    pub(super) full: bool,
    pub(super) took: Duration,
}

/// How a batch ended.
#[derive(Debug)]
pub(super) struct HeldBatch {
    pub(super) look: Look,
    pub(super) limit: usize,
    /// Messages that were locked.
    pub(super) took: usize,
    /// Messages completed.
    pub(super) completed: usize,
    /// Nothing was done: the transaction failed, or the target does not allow it.
    pub(super) refused: bool,
    pub(super) duration: Duration,
    /// Messages that are leased now.
    pub(super) kept: Vec<Kept>,
    /// How many plain handlers ended, and how long they took, together.
    pub(super) plain: (usize, Duration),
    /// The same of transactional ones.
    pub(super) in_order: (usize, Duration),
    pub(super) savepoints: usize,
}

/// A message that was held and is leased now.
#[derive(Debug)]
pub(super) enum Kept {
    /// Its handler ended otherwise than well.
    Ended(Claim, Outcome),
    Running(Handling),
    /// Its transactional handler did not end in time: to be run in a transaction of its own.
    Cut(Box<Delivery>),
}

impl Kept {
    pub(super) fn claim(&self) -> Claim {
        match self {
            Self::Ended(claim, _) => *claim,
            Self::Running(handling) => handling.claim(),
            Self::Cut(delivery) => Claim::of(delivery),
        }
    }
}

impl HeldBatch {
    /// Nothing was done.
    pub(super) fn refused(look: Look, limit: usize) -> Self {
        Self {
            look,
            limit,
            took: 0,
            completed: 0,
            refused: true,
            duration: Duration::ZERO,
            kept: Vec::new(),
            plain: (0, Duration::ZERO),
            in_order: (0, Duration::ZERO),
            savepoints: 0,
        }
    }

    /// Messages whose handlers were begun, and which were not left as they were.
    pub(super) fn begun(&self) -> usize {
        self.completed + self.kept.len()
    }
}

/// Holds up to `limit` messages and handles them, for `cap` at most. Tells what it found before.
pub(super) async fn run(
    context: Arc<Context>,
    owner: Arc<str>,
    (look, ranges): (Look, Option<Ranges>),
    (limit, cap): (usize, Duration),
    tell: mpsc::UnboundedSender<Box<HeldLook>>,
) -> HeldBatch {
    let asked = Instant::now();
    let mut ended = HeldBatch::refused(look, limit);
    if let Err(error) = hold_and_handle(&context, &owner, ranges.as_ref(), cap, &tell, &mut ended).await {
        let (target_app, count) = (&context.target, ended.took);
        warn!(%target_app, count, ?error, "a transaction that holds messages failed; they are taken with leases");
    }
    ended.duration = asked.elapsed();
    ended
}

/// # Errors
/// Nothing was done, as far as the database can say.
async fn hold_and_handle(
    context: &Arc<Context>,
    owner: &Arc<str>,
    ranges: Option<&Ranges>,
    cap: Duration,
    tell: &mpsc::UnboundedSender<Box<HeldLook>>,
    ended: &mut HeldBatch,
) -> Result<()> {
    let (asked, request, why) = (Instant::now(), context.request(owner), ended.look.why());
    // Whatever ends this early closes the connection, and with it the transaction.
    let mut client = context.store.busy().await?;
    let tx = HeldTx::begin(&context.store, &mut client, !context.registry.is_plain()).await?;
    let count = |looked: &Option<Looked>| Some(looked.as_ref().map_or(0, |looked| looked.deliveries.len()));
    let holding = tx.hold(&request, ended.limit, ranges, why, cap);
    let looked = context.claiming(why, holding, count).await?;
    ended.refused = looked.is_none();
    if let Some(looked) = &looked {
        ended.took = looked.deliveries.len();
        let full = ended.took >= ended.limit || request.may_be_cut(&looked.deliveries);
        let (look, observed) = (ended.look, Observed::of(looked));
        // The loop is gone only when the process is being torn down.
        let _ = tell.send(Box::new(HeldLook { look, observed, full, took: asked.elapsed() }));
    }
    let Some(looked) = looked.filter(|looked| !looked.deliveries.is_empty()) else {
        if tx.roll_back().await.is_ok() {
            client.answered();
        }
        return Ok(());
    };
    ended.refused = true;
    let mut batch = Batch::default();
    batch.handle(context, &tx, looked.deliveries, cap).await?;
    (ended.completed, ended.kept) = match batch.settle(context, owner, tx).await {
        Ok(settled) => {
            client.answered();
            settled
        }
        Err(error) => {
            // The commit may have happened. Nothing is run again before the database has said.
            drop(client);
            if batch.done.is_empty() || !were_settled(context, &batch.done).await? {
                return Err(error);
            }
            (batch.done.len(), Vec::new())
        }
    };
    (ended.plain, ended.in_order, ended.savepoints) = (batch.plain, batch.in_order, batch.savepoints);
    ended.refused = false;
    Ok(())
}

/// What became of the messages so far.
#[derive(Default)]
struct Batch {
    done: Vec<Claim>,
    /// With how their handlers ended.
    otherwise: Vec<(Claim, Outcome)>,
    cut: Vec<Delivery>,
    running: FuturesUnordered<Handling>,
    plain: (usize, Duration),
    in_order: (usize, Duration),
    savepoints: usize,
}

impl Batch {
    /// Runs handlers until all have ended, or the time has come; those that have not begun by then are left as they
    /// were.
    async fn handle(
        &mut self,
        context: &Arc<Context>,
        tx: &HeldTx<'_>,
        deliveries: Vec<Delivery>,
        cap: Duration,
    ) -> Result<()> {
        let (until, alone) = (Instant::now() + cap, deliveries.len() == 1);
        let Some(tx) = tx.handlers() else {
            self.side_by_side(context, deliveries, until).await;
            return Ok(());
        };
        let is_transactional = |delivery: &Delivery| context.registry.tx(&delivery.record_type).is_some();
        let (in_order, plain) = deliveries.into_iter().partition::<Vec<_>, _>(is_transactional);
        let in_order = in_order::run(context, tx, in_order, (until, cap), alone);
        let (in_order, ()) = futures::join!(in_order, self.side_by_side(context, plain, until));
        let in_order = in_order?;
        self.done.extend(in_order.done);
        self.otherwise.extend(in_order.otherwise);
        (self.cut, self.in_order, self.savepoints) = (in_order.cut, in_order.handlers, in_order.savepoints);
        Ok(())
    }

    /// Runs plain handlers.
    async fn side_by_side(&mut self, context: &Arc<Context>, deliveries: Vec<Delivery>, until: Instant) {
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
        self.plain.0 += 1;
        self.plain.1 += took;
        match outcome {
            Outcome::Done => self.done.push(claim),
            outcome => self.otherwise.push((claim, outcome)),
        }
    }

    /// Ends the transaction. Returns how many messages were completed, and what is leased now.
    ///
    /// # Errors
    /// Nothing was done, or the commit's answer was lost.
    async fn settle(&mut self, context: &Context, owner: &str, tx: HeldTx<'_>) -> Result<(usize, Vec<Kept>)> {
        let others = self.otherwise.iter().map(|(claim, _)| *claim);
        let others = others.chain(self.running.iter().map(|handling| handling.claim()));
        let others: Vec<Claim> = others.chain(self.cut.iter().map(Claim::of)).collect();
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
        context.settling(done, settle).await?;
        let otherwise = self.otherwise.drain(..).map(|(claim, outcome)| Kept::Ended(claim, outcome));
        let running = std::mem::take(&mut self.running).into_iter().map(Kept::Running);
        let cut = self.cut.drain(..).map(|cut| Kept::Cut(Box::new(cut)));
        let is_leased = |kept: &Kept| leased.contains(&kept.claim());
        Ok((completed, otherwise.chain(running).chain(cut).filter(is_leased).collect()))
    }
}
