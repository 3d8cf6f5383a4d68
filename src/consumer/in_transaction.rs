//! In-transaction mode: messages are not leased but locked by the transaction that handles and completes them.
//!
//! Nothing is written when they are taken and one row version when they are done, instead of two; a process that dies gives
//! them back at once, with its connection. The price is a transaction open for as long as a batch is handled, which holds
//! back vacuum: it is capped, and handlers must be short. A batch in which one handler does not end well is rolled back
//! as a whole, and its messages are taken again with leases, which is where failures are counted.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, warn};

use super::{
    claiming::{Dry, LOWEST_FIRST_EVERY},
    effects::were_settled,
    marks::{From, Marks, Sight},
    run::{Context, Loop, Task},
};
use crate::{
    error::Result,
    handler::caught,
    message::{Delivery, Found, MessageId},
    outcome::Outcome,
    store::Ranges,
};

/// Batches in flight at a time, each on a connection of its own: one is handled while the next one is fetched.
const BATCHES_MAX: usize = 3;

/// A process that has just started uses leases: long enough to have rescued from the one before it, which may have died of
/// what this one would hold next. Without that, a message could kill one fresh process after the other, and none would live
/// to say so.
const LEASES_FIRST: Duration = Duration::from_secs(3);

/// Messages that the first transaction of a consumer may hold, before anything is known about its handlers.
const FIRST: usize = 16;

/// The consumer's state for this mode.
pub(super) struct Hold {
    /// Where looks in transactions begin; those with leases are for other record types.
    pub(super) marks: Marks,
    /// The next one begins at the beginning.
    pub(super) everywhere: bool,
    /// Full batches in a row.
    full_batches: u32,
    tell: mpsc::UnboundedSender<HeldLook>,
    pub(super) looks: mpsc::UnboundedReceiver<HeldLook>,
    /// How many messages the next transaction may hold.
    limit: usize,
    /// What the last look says for parking.
    pub(super) dry: Option<Dry>,
    /// Whether the next look is one for leases.
    pub(super) leased: Leased,
}

impl Hold {
    pub(super) fn new(tx_batch: usize) -> Self {
        let (tell, looks) = mpsc::unbounded_channel();
        Self {
            marks: Marks::default(),
            everywhere: false,
            full_batches: 0,
            tell,
            looks,
            limit: FIRST.min(tx_batch),
            dry: None,
            leased: Leased::No,
        }
    }
}

/// What the next look is, where this mode is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Leased {
    /// One that holds.
    #[default]
    No,
    /// One for messages that are not held: other record types.
    Others,
    /// One for any message: the target does not allow to hold, or a batch was rolled back and had so many.
    Next(usize),
}

/// What a batch found, told before it is handled, so that the next one can be fetched meanwhile.
pub(super) struct HeldLook {
    found: Found,
    sight: Sight,
    from: From,
    lowest_first: bool,
    full: bool,
}

/// How a batch ended.
pub(super) struct HeldBatch {
    found: Found,
    limit: usize,
    /// Messages that were locked.
    took: usize,
    /// Messages completed.
    completed: usize,
    /// Nothing was done: some handler did not end well, the transaction failed, or the target does not allow it.
    refused: bool,
    duration: Duration,
}

/// What one batch is to do.
struct Request {
    found: Found,
    limit: usize,
    from: From,
    lowest_first: bool,
    ranges: Option<Ranges>,
    cap: Duration,
}

impl Loop {
    /// Whether the next look is to be one in a transaction.
    pub(super) fn holds(&self) -> bool {
        self.context.config.in_transaction.is_some()
            && self.hold.leased == Leased::No
            && self.context.process.age() >= LEASES_FIRST
    }

    /// Begins a batch, where there is a reason to look.
    pub(super) fn hold(&mut self) -> Option<Task<HeldBatch>> {
        let cap = self.context.config.in_transaction.filter(|_| self.holds())?;
        let found = self.look?;
        let limit = self.context.allowance.take(self.hold.limit);
        if limit == 0 {
            return None;
        }
        let from = if std::mem::take(&mut self.hold.everywhere) { From::Beginning } else { self.hold.marks.from() };
        let lowest_first = self.hold.full_batches >= LOWEST_FIRST_EVERY;
        let ranges = self.hold.marks.ranges(from, lowest_first);
        let from = if ranges.is_none() { From::Beginning } else { from };
        let (context, owner, tell) = (self.context.clone(), self.owner.clone(), self.hold.tell.clone());
        // Looked for again when the batch has said what it found.
        self.look = None;
        let request = Request { found, limit, from, lowest_first, ranges, cap };
        Some(async move { run(&context, &owner, request, &tell).await }.boxed())
    }

    pub(super) fn may_hold(&self, batches: usize) -> bool {
        batches < BATCHES_MAX.min(self.context.config.concurrency) && self.holds() && self.look.is_some()
    }

    /// More of the same while batches come full; else the rest (other record types, gates, suspects) is looked for with leases.
    pub(super) fn held_looked(&mut self, look: HeldLook) {
        self.hold.marks.looked(look.from, look.lowest_first, !look.full, &look.sight);
        self.hold.full_batches = if look.full && !look.lowest_first { self.hold.full_batches + 1 } else { 0 };
        let (nothing, oldest_xid) = (look.sight.took() == 0, look.sight.oldest_xid);
        self.hold.dry = Some(Dry { nothing, found: look.found, from: look.from, oldest_xid });
        if look.full {
            self.look = Some(Found::Drain);
            self.unpark();
        }
    }

    /// After a look for leases that took so many.
    pub(super) fn leased(&mut self, took: usize) {
        self.hold.leased = match self.hold.leased {
            Leased::Next(left) if left > took && took > 0 => Leased::Next(left - took),
            _ => Leased::No,
        };
    }

    pub(super) fn held(&mut self, batch: HeldBatch) {
        self.context.allowance.put_back(batch.limit - batch.completed);
        self.runs.ok += batch.completed as i64;
        self.context.process.found(&self.context.target, batch.found, batch.completed);
        if batch.refused {
            self.hold.limit = (self.hold.limit / 2).max(1);
            self.hold.leased = Leased::Next(batch.took.max(1));
            self.look = Some(batch.found);
            // What was held is free again, perhaps behind where looks begin now.
            self.everywhere |= batch.took > 0;
            return;
        }
        if batch.completed > 0 {
            let each = batch.duration / batch.completed as u32;
            let cap = self.context.config.in_transaction.unwrap_or_default();
            // Half of the cap, so that a batch of average messages stays below it.
            let fits = (cap.as_nanos() / 2 / each.as_nanos().max(1)) as usize;
            self.hold.limit = (self.hold.limit * 2).min(fits).clamp(1, self.context.config.tx_batch);
        }
        if batch.completed < batch.took {
            // The cap came first: what was not begun is free again, and no bell says so.
            self.hold.everywhere = true;
            self.look = Some(Found::Drain);
        } else if batch.took < batch.limit {
            self.hold.leased = Leased::Others;
            self.look = self.look.or(Some(if batch.took > 0 { Found::Drain } else { batch.found }));
        }
    }
}

async fn run(
    context: &Context,
    owner: &Arc<str>,
    request: Request,
    tell: &mpsc::UnboundedSender<HeldLook>,
) -> HeldBatch {
    let (found, limit) = (request.found, request.limit);
    let began = Instant::now();
    let mut took = 0;
    let (completed, refused) = match batch(context, owner, request, tell, &mut took).await {
        Ok(Some(completed)) => (completed, false),
        Ok(None) => (0, true),
        Err(error) => {
            warn!(target_app = %context.target, count = took, ?error, "a transaction that held messages failed; they are taken with leases");
            (0, true)
        }
    };
    HeldBatch { found, limit, took, completed, refused, duration: began.elapsed() }
}

/// Locks, handles, completes, commits. `None`: rolled back because a handler did not end well, or not allowed now.
async fn batch(
    context: &Context,
    owner: &Arc<str>,
    request: Request,
    tell: &mpsc::UnboundedSender<HeldLook>,
    took: &mut usize,
) -> Result<Option<usize>> {
    let Request { found, limit, from, lowest_first, ranges, cap } = request;
    let _beside_others = context.process.alone().read_owned().await;
    // Whatever ends this early closes the connection, and with it the transaction.
    let mut client = context.store.busy().await?;
    let tx = context.store.within_deadline("begin", client.build_transaction().start()).await?;
    let claim = context.request(owner);
    let types = context.registry.tx_types(context.config.record_types.as_deref());
    let holding = context.store.hold_in(&tx, &claim, &types, limit, ranges.as_ref(), found, cap);
    let holding = context.store.within_deadline("hold messages", holding);
    let Some(looked) = context.watching_held(found, holding).await? else {
        if context.store.within_deadline("roll back", tx.rollback()).await.is_ok() {
            client.answered();
        }
        return Ok(None);
    };
    *took = looked.deliveries.len();
    let full = *took >= limit || claim.may_be_cut(&looked.deliveries);
    // The loop is gone only when the process is being torn down.
    let _ = tell.send(HeldLook { found, sight: Sight::of(&looked), from, lowest_first, full });
    let began = Instant::now();
    let mut done: Vec<Delivery> = Vec::with_capacity(looked.deliveries.len());
    for delivery in looked.deliveries {
        // What is not begun by then goes back with the commit.
        let Some(left) = cap.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else { break };
        let Some(handler) = context.registry.tx(&delivery.record_type) else { continue };
        let limit = context.config.handler_timeout.map_or(left, |timeout| timeout.min(left));
        let handling = caught(handler.handle(delivery.clone(), &tx), Some(limit));
        let outcome = context.processing(&delivery).run(handling).await;
        if outcome != Outcome::Done {
            debug!(id = delivery.id, "a batch is rolled back: a handler did not end well");
            if context.store.within_deadline("roll back", tx.rollback()).await.is_ok() {
                client.answered();
            }
            return Ok(None);
        }
        done.push(delivery);
    }
    let ids: Vec<MessageId> = done.iter().map(|delivery| delivery.id).collect();
    let attempts: Vec<i32> = done.iter().map(|delivery| delivery.attempt).collect();
    if !ids.is_empty() {
        let completing = context.store.complete_held_in(&tx, owner, &ids, &attempts);
        if context.store.within_deadline("complete messages", completing).await? < ids.len() {
            // Nobody else can have settled what this transaction has locked; better no effect than a wrong one.
            return Ok(None);
        }
    }
    let commit = context.store.within_deadline("commit", tx.commit());
    match context.committing(ids.len(), commit).await {
        Ok(()) => client.answered(),
        Err(error) => {
            // The commit may have happened. Nothing is cancelled and nothing is run again before the database has said.
            drop(client);
            if !were_settled(context, &ids, &attempts).await? {
                return Err(error);
            }
        }
    }
    Ok(Some(ids.len()))
}
