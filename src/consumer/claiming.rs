//! Looking into the table: when, for how many, and what becomes of them.

use std::time::Duration;

use futures::FutureExt;
use tracing::{debug, info, warn};

use super::run::{Loop, Task};
use crate::{
    backoff,
    error::Result,
    message::{Delivery, Found},
};

const RETRY_BASE: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// One look into the table.
pub(super) struct Claimed {
    pub(super) found: Found,
    pub(super) limit: usize,
    /// The oldest transaction running before the look, where that matters.
    pub(super) oldest: Option<i64>,
    pub(super) deliveries: Result<Vec<Delivery>>,
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
        let (context, owner, failures) = (self.context.clone(), self.owner.clone(), self.claim_failures);
        let settles = self.settles_at().is_some();
        Some(
            async move {
                if failures > 0 {
                    tokio::time::sleep(backoff::delay(RETRY_BASE, RETRY_CAP, failures, rand::random())).await;
                }
                // What a claim took whose answer did not come must be given back before it can be claimed.
                let held = context.process.held();
                if failures > 0
                    && let Err(error) = held.return_strays(&context.store, &owner).await
                {
                    return Claimed { found, limit, oldest: None, deliveries: Err(error) };
                }
                // Read before the claim: what was committed by then, the claim sees.
                let oldest = if settles { context.store.oldest_xid().await.ok() } else { None };
                let request = context.request(&owner);
                let claim = held.claim(context.store.claim(&request, limit, found));
                let deliveries = context.store.telemetry().claiming(&context.target, found, claim).await;
                Claimed { found, limit, oldest, deliveries }
            }
            .boxed(),
        )
    }

    /// Queues what was claimed and returns how many that were; `None`: the claim failed and is repeated.
    pub(super) fn take_claimed(&mut self, claimed: Claimed) -> Option<usize> {
        let Claimed { found, limit, deliveries, .. } = claimed;
        match deliveries {
            Ok(deliveries) => {
                if self.claim_failures > 0 {
                    info!(target_app = %self.context.target, "claiming again");
                    self.claim_failures = 0;
                }
                let took = deliveries.len();
                // A full batch: there may be more, and more will come. A short one: all was taken.
                if took >= limit || self.context.request(&self.owner).may_be_cut(&deliveries) {
                    self.look = Some(Found::Drain);
                    self.unpark();
                }
                // A claim that was under way while the lease was lost: rescued already, or found as a stray soon.
                let (mine, lost): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(|d| d.owner == self.owner);
                self.context.process.held().forget(lost.iter().map(|delivery| (delivery.id, delivery.attempt)));
                self.context.allowance.put_back(limit - mine.len());
                self.queue.extend(mine);
                Some(took)
            }
            Err(error) if error.is_lease_lost() => {
                // Until the heartbeat notices, every claim is refused: never as fast as the server can say so.
                debug!(?error, "claimed under an incarnation that was rescued");
                self.context.allowance.put_back(limit);
                self.claim_failures += 1;
                self.look = Some(found);
                None
            }
            Err(error) => {
                if self.claim_failures == 0 {
                    warn!(target_app = %self.context.target, ?error, "claiming failed; trying again until it works");
                }
                self.claim_failures += 1;
                self.context.allowance.put_back(limit);
                self.look = Some(found);
                None
            }
        }
    }
}
