//! The end of a consumer.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    claiming::Claimed,
    run::{Loop, SETTLE_MAX, Task, some},
};
use crate::{
    process::Parked,
    store::{Settlement, Verdict},
};

/// How long a consumer that stops tries to settle what it still holds.
const LAST_SETTLE_MAX: Duration = Duration::from_secs(5);

impl Loop {
    /// Stops claiming, gives back what did not start, waits for what runs, settles it all.
    pub(super) async fn drain(
        mut self,
        claiming: Option<Task<Claimed>>,
        settling: Option<Task<()>>,
        suspecting: Option<Task<()>>,
        parking: Option<Task<Option<Parked>>>,
    ) {
        self.context.pulse.ending();
        let drain_timeout = self.stopping.borrow().unwrap_or(self.context.config.drain_timeout);
        let deadline = Instant::now() + drain_timeout;
        info!(target_app = %self.context.target, running = self.running.len(), "draining");
        // A claim under way must come back, or its messages would wait for a rescue.
        if let Some(claiming) = claiming {
            let claimed = claiming.await;
            self.queue.extend(
                claimed
                    .looked
                    .map(|looked| looked.deliveries)
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|delivery| delivery.owner == self.owner),
            );
        }
        let unstarted = std::mem::take(&mut self.queue);
        self.unsettled.extend(unstarted.iter().map(|delivery| Settlement {
            id: delivery.id,
            attempt: delivery.attempt,
            verdict: Verdict::Release,
        }));
        let mut settling = settling;
        let mut batch = Vec::new();
        while !self.running.is_empty() || !self.unsettled.is_empty() || settling.is_some() {
            if settling.is_none() && !self.unsettled.is_empty() {
                settling = Some(self.settle());
            }
            tokio::select! {
                biased;
                _ = self.verdicts.recv_many(&mut batch, SETTLE_MAX), if !self.running.is_empty() => self.take_verdicts(&mut batch),
                () = some(&mut settling) => settling = None,
                _ = self.incarnation.changed() => self.start_over(),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        if !self.running.is_empty() {
            warn!(
                target_app = %self.context.target,
                running = self.running.len(),
                "handlers did not finish in time; they are dropped and their messages given back"
            );
            self.unsettled.extend(self.running.drain().map(|((id, attempt), running)| {
                running.abort.abort();
                Settlement { id, attempt, verdict: Verdict::Release }
            }));
        }
        if let Some(suspecting) = suspecting {
            let _ = tokio::time::timeout_at(deadline, suspecting).await;
        }
        let last = async {
            if let Some(settling) = settling {
                settling.await;
            }
            while !self.unsettled.is_empty() {
                self.settle().await;
            }
        };
        // Bounded: what cannot be settled or given back now is given back by whoever rescues.
        let _ = tokio::time::timeout(LAST_SETTLE_MAX, last).await;
        // A latch left behind would make publishers ring for nobody.
        if let Some(parking) = parking {
            let parked = parking.await;
            self.parked(parked);
        }
        self.unpark();
        self.context.process.leave(&self.context.target, self.context.config.concurrency, &self.bell).await;
        drop(self.core);
    }
}
