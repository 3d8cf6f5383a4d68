//! The end of a consumer.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::Loop;
use crate::{
    consumer::{
        parking,
        under_way::{Ended, Kind},
    },
    store::Claim,
};

/// How long a consumer that stops tries to settle what it still has.
const LAST_SETTLE_MAX: Duration = Duration::from_secs(5);

impl Loop {
    /// Stops claiming, gives back what did not start, waits for what runs, settles it all.
    pub(super) async fn drain(mut self) {
        self.context.pulse.ending();
        let drain_timeout = self.signals.stopping().borrow().unwrap_or(self.context.config.drain_timeout);
        let deadline = Instant::now() + drain_timeout;
        info!(target_app = %self.context.target, running = self.workers.running(), "draining");
        self.outbox.release(self.workers.take_unstarted());
        // A claim under way must come back, or its messages would wait for a rescue; held batches are short by their
        // cap.
        self.go_on(None, |this| this.under_way.has(Kind::Claim) || this.under_way.held() > 0).await;
        self.go_on(Some(deadline), |this| {
            this.workers.running() > 0
                || !this.outbox.is_empty()
                || [Kind::Suspects, Kind::Report, Kind::Keep].iter().any(|kind| this.under_way.has(*kind))
        })
        .await;
        let running = self.workers.running();
        if running > 0 {
            let target_app = &self.context.target;
            warn!(%target_app, running, "handlers did not finish in time; they are dropped and their messages given back");
            self.outbox.release(self.workers.stop());
        }
        self.under_way.drop_one(Kind::Suspects);
        // Bounded: what cannot be settled or given back now is given back by whoever rescues.
        self.go_on(Some(Instant::now() + LAST_SETTLE_MAX), |this| !this.outbox.is_empty()).await;
        // A latch left behind would make publishers ring for nobody.
        self.go_on(None, |this| this.under_way.has(Kind::Park)).await;
        self.park(parking::Event::Busy);
        let Self { context, signals, .. } = self;
        context.process.leave(&context.target, context.config.concurrency, signals.bell()).await;
    }

    /// Goes on with what is under way, and settles, as long as there is something to wait for.
    async fn go_on(&mut self, until: Option<Instant>, is_left: impl Fn(&Self) -> bool) {
        while is_left(self) {
            self.begin_settle();
            let deadline = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = self.under_way.next() => self.ended_at_last(ended),
                signal = self.signals.not_ours() => self.lost(signal),
                () = deadline => return,
            }
        }
    }

    /// What an end means for a consumer that claims and starts nothing any more.
    fn ended_at_last(&mut self, ended: Ended) {
        match ended {
            Ended::Handled(handled) => {
                self.handled(handled);
                // Of batches, what would run again.
                self.outbox.release(self.workers.take_unstarted());
            }
            Ended::Claimed(claimed) => {
                let claimed = claimed.looked.map(|looked| self.mine(looked)).unwrap_or_default();
                self.outbox.release(claimed.iter().map(Claim::of));
            }
            Ended::Held(batch) => {
                self.held(batch);
                self.outbox.release(self.workers.take_unstarted());
            }
            Ended::Latched(parked) => self.park(parking::Event::Latched(parked)),
            Ended::Settled(_) => self.outbox.settled(),
            // There is nothing to look for any more.
            Ended::HeldLook(_) | Ended::Suspects | Ended::Reported | Ended::Kept | Ended::Swept(_) | Ended::Opened => {}
        }
    }
}
