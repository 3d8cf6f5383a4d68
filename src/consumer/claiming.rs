//! Looking into the table: when, for how many, and what becomes of them.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{
    marks::{From, Marks, Sight},
    run::{Context, Loop, Task},
};
use crate::{
    backoff,
    error::Result,
    message::Found,
    store::{Looked, Ranges},
};

const RETRY_BASE: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// Every so many full batches, one look begins with the lowest priority, so that none starves.
const LOWEST_FIRST_EVERY: u32 = 16;

/// One look into the table.
pub(super) struct Claimed {
    pub(super) found: Found,
    pub(super) limit: usize,
    pub(super) from: From,
    lowest_first: bool,
    took: Duration,
    pub(super) looked: Result<Looked>,
}

/// What a look that succeeded says about the queue.
pub(super) struct Dry {
    /// Nothing at all was found.
    pub(super) nothing: bool,
    pub(super) found: Found,
    pub(super) from: From,
    /// The oldest transaction running before the look.
    pub(super) oldest_xid: i64,
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
        let from = if std::mem::take(&mut self.everywhere) { From::Beginning } else { self.marks.from() };
        // Every look before parking must see late commits.
        let from = if from == From::Last && self.settles_at().is_some() { From::Marks } else { from };
        let lowest_first = self.full_batches >= LOWEST_FIRST_EVERY;
        let ranges = self.marks.ranges(from, lowest_first);
        let from = if ranges.is_none() { From::Beginning } else { from };
        let (context, owner, failures) = (self.context.clone(), self.owner.clone(), self.claim_failures);
        Some(
            async move {
                if failures > 0 {
                    tokio::time::sleep(backoff::delay(RETRY_BASE, RETRY_CAP, failures, rand::random())).await;
                }
                let asked = Instant::now();
                let looked = look(&context, &owner, failures > 0, limit, ranges.as_ref(), found).await;
                Claimed { found, limit, from, lowest_first, took: asked.elapsed(), looked }
            }
            .boxed(),
        )
    }

    /// Queues what was claimed; answers when that was all there was to find.
    pub(super) fn take_claimed(&mut self, claimed: Claimed) -> Option<Dry> {
        let Claimed { found, limit, from, lowest_first, took, looked } = claimed;
        match looked {
            Ok(looked) => {
                if self.claim_failures > 0 {
                    info!(target_app = %self.context.target, "claiming again");
                    self.claim_failures = 0;
                }
                let count = looked.deliveries.len();
                self.leased_next = self.leased_next.saturating_sub(count.max(1));
                let full = count >= limit || self.context.request(&self.owner).may_be_cut(&looked.deliveries);
                self.marks.looked(from, lowest_first, !full, &Sight::of(&looked));
                if from == From::Beginning {
                    self.marks.looked_everywhere(took);
                }
                self.full_batches = if full && !lowest_first { self.full_batches + 1 } else { 0 };
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
                (self.look.is_none()).then_some(Dry { nothing: count == 0, found, from, oldest_xid })
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
                self.marks = Marks::default();
                self.look = Some(found);
                None
            }
        }
    }
}

/// One claim. After a failure, what a claim took whose answer did not come is given back before it can be claimed.
async fn look(
    context: &Context,
    owner: &Arc<str>,
    failed: bool,
    limit: usize,
    ranges: Option<&Ranges>,
    found: Found,
) -> Result<Looked> {
    let held = context.process.held();
    if failed {
        held.return_strays(&context.store, owner).await?;
    }
    let request = context.request(owner);
    context.watching(found, held.claim(context.store.claim(&request, limit, ranges, found))).await
}
