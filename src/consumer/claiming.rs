//! Looking into the table: when, for how many, and what becomes of them.

use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{
    in_transaction::Leased,
    marks::{From, Sight},
    run::{Context, Loop, Task},
};
use crate::{
    backoff,
    error::Result,
    message::Found,
    store::{ClaimRequest, Looked, Ranges},
};

const RETRY_BASE: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// Every so many full batches, one look begins with the lowest priority, so that none starves.
pub(super) const LOWEST_FIRST_EVERY: u32 = 16;

/// One look into the table.
pub(super) struct Claimed {
    pub(super) found: Found,
    pub(super) limit: usize,
    pub(super) from: From,
    lowest_first: bool,
    /// It was for messages that are usually held.
    of_held: bool,
    took: Duration,
    pub(super) looked: Result<Looked>,
}

/// What a look that succeeded says about the queue.
#[derive(Clone, Copy)]
pub(super) struct Dry {
    /// Nothing at all was found.
    pub(super) nothing: bool,
    pub(super) found: Found,
    pub(super) from: From,
    /// The oldest transaction running before the look.
    pub(super) oldest_xid: i64,
}

impl Dry {
    /// Together with an earlier look for other messages.
    fn and(self, earlier: Self) -> Self {
        Self {
            nothing: self.nothing && earlier.nothing,
            found: earlier.found,
            from: if self.from == From::Beginning { earlier.from } else { self.from },
            oldest_xid: self.oldest_xid.min(earlier.oldest_xid),
        }
    }
}

impl Loop {
    /// Claims when there is a reason to look and room for a worthwhile batch: free handlers, or half the capacity.
    pub(super) fn claim(&mut self) -> Option<Task<Claimed>> {
        let found = self.look?;
        let held = self.queue.len() + self.running.len() + self.unsettled.len() + self.settling_count;
        let capacity = self.capacity();
        let idle_handlers = self.queue.is_empty() && self.tasks < self.context.config.concurrency;
        if held >= capacity || !(idle_handlers || held <= capacity / 2) {
            // Too busy to answer bells.
            self.unpark();
            return None;
        }
        let limit = self.context.allowance.take(capacity - held);
        if limit == 0 {
            return None;
        }
        self.look = None;
        // Looks for what is usually held go on where those in transactions are.
        let of_held = matches!(self.hold.leased, Leased::Next(_));
        let marks = if of_held { &self.hold.marks } else { &self.marks };
        let from = if std::mem::take(&mut self.everywhere) { From::Beginning } else { marks.from() };
        // Every look before parking must see late commits.
        let from = if from == From::Last && self.settles_at().is_some() { From::Marks } else { from };
        let lowest_first = self.full_batches >= LOWEST_FIRST_EVERY;
        let ranges = marks.ranges(from, lowest_first);
        let from = if ranges.is_none() { From::Beginning } else { from };
        // What is not held; see `in_transaction`.
        let except = (self.hold.leased == Leased::Others).then(|| self.context.registry.tx_types(None));
        let (context, owner, failures) = (self.context.clone(), self.owner.clone(), self.claim_failures);
        Some(
            async move {
                if failures > 0 {
                    tokio::time::sleep(backoff::delay(RETRY_BASE, RETRY_CAP, failures, rand::random())).await;
                }
                let asked = Instant::now();
                let request = ClaimRequest { except_types: except.as_deref(), ..context.request(&owner) };
                let looked = look(&context, &request, failures > 0, limit, ranges.as_ref(), found).await;
                Claimed { found, limit, from, lowest_first, of_held, took: asked.elapsed(), looked }
            }
            .boxed(),
        )
    }

    /// A message of a target with a limit has left: there is room again, and no bell for it.
    pub(super) fn look_if_limited(&mut self) {
        if self.limited {
            self.look = self.look.or(Some(Found::Drain));
        }
    }

    /// After anything that may have been a failover.
    pub(super) fn forget_places(&mut self) {
        (self.marks, self.hold.marks) = Default::default();
    }

    /// Queues what was claimed; answers when that was all there was to find.
    pub(super) fn take_claimed(&mut self, claimed: Claimed) -> Option<Dry> {
        let Claimed { found, limit, from, lowest_first, of_held, took, looked } = claimed;
        match looked {
            Ok(looked) => {
                if self.claim_failures > 0 {
                    info!(target_app = %self.context.target, "claiming again");
                    self.claim_failures = 0;
                }
                let count = looked.deliveries.len();
                let others = self.hold.leased == Leased::Others;
                self.leased(count);
                self.context.process.found(&self.context.target, found, count);
                let full = count >= limit || self.context.request(&self.owner).may_be_cut(&looked.deliveries);
                let marks = if of_held { &mut self.hold.marks } else { &mut self.marks };
                marks.looked(from, lowest_first, !full, &Sight::of(&looked));
                if from == From::Beginning {
                    marks.looked_everywhere(took);
                }
                self.full_batches = if full && !lowest_first { self.full_batches + 1 } else { 0 };
                self.limited = looked.limited;
                let Looked { oldest_xid, deliveries, .. } = looked;
                // A claim that was under way while the lease was lost: rescued already, or found as a stray soon.
                let (mine, lost): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(|d| d.owner == self.owner);
                self.context.process.held().forget(lost.iter().map(|delivery| (delivery.id, delivery.attempt)));
                self.context.allowance.put_back(limit - mine.len());
                self.queue.extend(mine);
                if full {
                    // There may be more, and more will come.
                    self.look = Some(Found::Drain);
                    self.unpark();
                    return None;
                }
                let dry = Dry { nothing: count == 0, found, from, oldest_xid };
                let dry = if others { self.hold.dry.take().map_or(dry, |held| dry.and(held)) } else { dry };
                (self.look.is_none()).then_some(dry)
            }
            Err(error) => {
                if error.is_lease_lost() {
                    // Until the heartbeat notices, every claim is refused: never as fast as the server can say so.
                    debug!(?error, "claimed under an incarnation that was rescued");
                } else if self.claim_failures == 0 {
                    warn!(target_app = %self.context.target, ?error, "claiming failed; trying again until it works");
                }
                self.claim_failures += 1;
                self.context.allowance.put_back(limit);
                // It may be another server when it is back, where the same ids mean other messages.
                self.forget_places();
                self.look = Some(found);
                None
            }
        }
    }
}

/// One claim. After a failure, what a claim took whose answer did not come is given back before it can be claimed.
async fn look(
    context: &Context,
    request: &ClaimRequest<'_>,
    failed: bool,
    limit: usize,
    ranges: Option<&Ranges>,
    found: Found,
) -> Result<Looked> {
    let held = context.process.held();
    if failed {
        held.return_strays(&context.store, request.owner).await?;
    }
    context.watching(found, held.claim(context.store.claim(request, limit, ranges, found))).await
}
