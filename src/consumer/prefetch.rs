//! How many messages to take ahead of free handlers, and giving them back.

use std::time::Duration;

use tokio::time::Instant;

use super::run::Loop;
use crate::store::{Settlement, Verdict};

/// Handlers faster than this on average are worth prefetching for: as many as they handle in so long, within limits.
pub(super) const PREFETCH_BELOW: Duration = Duration::from_millis(50);
const PREFETCH_WORTH: Duration = Duration::from_millis(20);
const PREFETCH_MAX: usize = 1000;

impl Loop {
    /// Most messages this consumer may hold: running, waiting to run, waiting to be settled.
    pub(super) fn capacity(&self) -> usize {
        let concurrency = self.context.config.concurrency;
        let batch = self.context.config.tx_batch;
        let prefetch = self.context.config.prefetch.unwrap_or_else(|| match self.average {
            average if average >= PREFETCH_BELOW => 0,
            average => {
                let worth = (PREFETCH_WORTH.as_nanos() / average.as_nanos().max(1)) as usize;
                worth.saturating_mul(concurrency).clamp(concurrency, concurrency.max(PREFETCH_MAX / batch))
            }
        });
        (concurrency + prefetch) * batch
    }

    /// Gives back what was claimed ahead when handlers turn out to be slower than they were.
    pub(super) fn give_back_surplus(&mut self) {
        let keep = self.capacity().saturating_sub(self.running.len());
        // Not for small changes: each costs a statement, an attempt, and its place in the queue.
        if self.average >= PREFETCH_BELOW && self.queue.len() > keep {
            let surplus = self.queue.split_off(keep).into_iter();
            self.unsettled.extend(surplus.map(|delivery| Settlement {
                id: delivery.id,
                attempt: delivery.attempt,
                verdict: Verdict::Release,
            }));
        }
    }

    /// Handlers that have all been running for long say as much as one that has ended.
    pub(super) fn notice_slow_handlers(&mut self) {
        if self.tasks >= self.context.config.concurrency {
            let youngest = self.running.values().filter_map(|running| running.started.get()).max();
            self.average = self.average.max(youngest.map_or(Duration::ZERO, Instant::elapsed));
        }
    }
}
