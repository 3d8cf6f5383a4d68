//! Looking without having been rung, and keeping the places where looks begin.

use futures::FutureExt;
use tokio::time::Instant;
use tracing::debug;

use super::{
    parking::Parking,
    run::{Loop, Task},
};
use crate::backoff;

impl Loop {
    /// Whether to look: who is awake does; who is parked asks together with the other consumers of the process.
    pub(super) fn sweep(&self) -> Task<bool> {
        let parked = matches!(self.parking, Parking::Parked(_));
        // Also has scheduled messages looked for.
        let waiting = self.context.process.sweeper().is_waiting(&self.context.target);
        async move { !parked || waiting.await }.boxed()
    }

    pub(super) fn next_sweep(&self) -> Option<Instant> {
        let sweep = self.context.config.sweep?;
        Some(Instant::now() + backoff::jittered(sweep, rand::random()).max(self.marks.full_in()))
    }

    /// Keeps where this consumer is, so that the next one to start need not begin at the beginning.
    pub(super) fn keep_marks(&mut self) -> Option<Task<()>> {
        let kept = self.marks.kept();
        if self.context.config.record_types.is_some() || kept.is_empty() || kept == self.kept {
            return None;
        }
        self.kept.clone_from(&kept);
        let context = self.context.clone();
        let keep = async move {
            if let Err(error) = context.store.keep_marks(&context.target, &kept).await {
                debug!(?error, "the marks could not be kept; the next sweep tries again");
            }
        };
        Some(keep.boxed())
    }
}
