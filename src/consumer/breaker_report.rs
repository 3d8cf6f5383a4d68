//! What the target's breaker is told: how runs went.

use std::sync::Arc;

use tracing::debug;

use super::{context::Context, running::Ran};
use crate::outcome::Outcome;

/// Successes that are remembered for the window of the next failure.
const OK_MAX: i64 = 1_000_000;

/// What the breaker has not been told yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BreakerReport {
    ok: i64,
    failed: i64,
    /// Why the dependency is down, as a handler has it.
    down: Option<String>,
    /// Canaries are reported at once, failures once a second.
    urgent: bool,
}

impl BreakerReport {
    pub(super) fn ran(&mut self, ran: &Ran, canary: bool) {
        match ran {
            Ran::Completed | Ran::Outcome(Outcome::Done | Outcome::Settled) => self.ok += 1,
            Ran::Outcome(Outcome::Retry { .. }) => self.failed += 1,
            Ran::Outcome(Outcome::Unavailable { reason }) => self.down = Some(reason.clone()),
            // Rejected and snoozed messages say nothing about the dependency; a canary that came to an end is well.
            Ran::Outcome(Outcome::Reject { .. } | Outcome::Snooze { .. }) | Ran::LeaseLost => {
                self.ok += i64::from(canary);
            }
        }
        self.urgent |= canary || self.down.is_some();
    }

    /// So many messages were completed where they were held.
    pub(super) fn completed(&mut self, messages: usize) {
        self.ok += messages as i64;
    }

    /// A handler was given up.
    pub(super) fn gave_up(&mut self) {
        self.failed += 1;
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// What is to be told now; `None`: a target whose runs all end well costs no report.
    pub(super) fn take(&mut self) -> Option<Self> {
        if self.failed == 0 && self.down.is_none() && !self.urgent {
            self.ok = self.ok.min(OK_MAX);
            return None;
        }
        Some(std::mem::take(self))
    }

    pub(super) async fn tell(self, context: Arc<Context>) {
        let Self { ok, failed, down, .. } = self;
        if let Err(error) = context.store.report_runs(&context.target, ok, failed, down.as_deref()).await {
            debug!(?error, "the breaker could not be told how runs went");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn successes_alone_cost_no_report_and_count_with_the_next_failure() {
        let mut report = BreakerReport::default();
        report.ran(&Ran::Completed, false);
        report.completed(3);
        assert_eq!(report.take(), None);
        report.ran(&Ran::Outcome(Outcome::retry("no")), false);
        assert!(!report.is_urgent());
        assert_eq!(report.take(), Some(BreakerReport { ok: 4, failed: 1, ..BreakerReport::default() }));
        assert_eq!(report.take(), None);
    }

    #[test]
    fn a_canary_that_comes_to_an_end_is_well_and_urgent() {
        let mut report = BreakerReport::default();
        for ran in [Ran::Outcome(Outcome::reject("no")), Ran::Outcome(Outcome::snooze(Duration::ZERO)), Ran::LeaseLost]
        {
            report.ran(&ran, true);
        }
        assert!(report.is_urgent());
        assert_eq!(report.take(), Some(BreakerReport { ok: 3, urgent: true, ..BreakerReport::default() }));
        assert!(!report.is_urgent());
    }

    #[test]
    fn a_dependency_that_is_down_is_urgent_and_what_a_handler_gave_up_is_not() {
        let mut report = BreakerReport::default();
        report.gave_up();
        assert!(!report.is_urgent());
        report.ran(&Ran::Outcome(Outcome::unavailable("no route")), false);
        assert!(report.is_urgent());
        assert_eq!(report.take().and_then(|report| report.down).as_deref(), Some("no route"));
    }
}
