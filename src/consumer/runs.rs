//! What the target's breaker is told: how runs went.

use futures::FutureExt;
use tracing::debug;

use super::run::{Loop, Task};
use crate::{outcome::Outcome, store::Verdict};

/// What the breaker has not been told yet.
#[derive(Default)]
pub(super) struct Runs {
    pub(super) ok: i64,
    pub(super) failed: i64,
    pub(super) down: Option<String>,
    /// Canaries are reported at once, failures once a second.
    pub(super) urgent: bool,
}

impl Runs {
    pub(super) fn count(&mut self, verdict: &Verdict, canary: bool) {
        match verdict {
            Verdict::Completed | Verdict::Outcome(Outcome::Done) => self.ok += 1,
            Verdict::Outcome(Outcome::Retry { .. }) => self.failed += 1,
            Verdict::Outcome(Outcome::Unavailable { reason }) => self.down = Some(reason.clone()),
            // Rejected and snoozed messages say nothing about the dependency; a canary that came to an end is well.
            _ => self.ok += i64::from(canary),
        }
        self.urgent |= canary || self.down.is_some();
    }
}

impl Loop {
    /// Tells the breaker. A target whose runs all end well costs no report.
    pub(super) fn report_runs(&mut self) -> Option<Task<()>> {
        let runs = std::mem::take(&mut self.runs);
        if runs.failed == 0 && runs.down.is_none() && !runs.urgent {
            // Successes alone are kept for the window of the next failure.
            self.runs.ok = runs.ok.min(1_000_000);
            return None;
        }
        let context = self.context.clone();
        let report = async move {
            let Runs { ok, failed, down, .. } = runs;
            if let Err(error) = context.store.report_runs(&context.target, ok, failed, down.as_deref()).await {
                debug!(?error, "the breaker could not be told how runs went");
            }
        };
        Some(report.boxed())
    }
}
