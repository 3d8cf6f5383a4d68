//! Targets, and what keeps their messages.

use std::time::Duration;

use serde::Serialize;

/// A target, what waits for it, who works on it, and what keeps its messages from being claimed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TargetState {
    /// Its name and its messages.
    pub stats: TargetStats,
    /// Live processes that consume it.
    pub processes: i64,
    /// Messages that they handle at the same time.
    pub workers: i64,
    /// Messages that the database refuses to change.
    pub set_aside: i64,
    /// Codes and sentences of the gates that are closed, as [`Explanation`](super::Explanation) has them; empty: it can be claimed.
    pub closed_gates: Vec<(String, String)>,
}

impl TargetState {
    /// Whether messages wait and nobody is registered who would take them.
    pub fn is_abandoned(&self) -> bool {
        self.processes == 0 && self.stats.pending > 0
    }
}

/// The messages of one target, by status, and what happened to them lately.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TargetStats {
    /// The target.
    pub target: String,
    /// Could be claimed now.
    pub pending: i64,
    /// Wait for their time.
    pub scheduled: i64,
    /// Claimed and not settled.
    pub processing: i64,
    /// Handled, not yet archived.
    pub completed: i64,
    /// Dead letters.
    pub failed: i64,
    /// Stopped by an operator.
    pub cancelled: i64,
    /// Age in seconds of the oldest pending message; `None` when nothing is pending.
    pub oldest_age_seconds: Option<f64>,
    /// In how many seconds nothing will be pending any more, at the rates of the last five minutes; `None` when nothing is
    /// pending, or when it does not become less.
    pub empty_in_seconds: Option<f64>,
    /// In how many seconds the next scheduled message becomes pending, less than 0 where it is overdue; `None` when none is
    /// scheduled.
    pub next_due_in_seconds: Option<f64>,
    /// Published by the second, in the mean of the last five minutes.
    pub published_per_second: f64,
    /// Completed by the second, likewise.
    pub completed_per_second: f64,
    /// Runs that errored in the last 50 to 60 minutes.
    pub errored_last_hour: i64,
    /// Messages rescued from dead consumers in that time.
    pub rescued_last_hour: i64,
    /// Messages that failed for good in that time.
    pub failed_last_hour: i64,
    /// The share of the messages claimed in that time that were found by sweeps, of 1: bells get lost when it grows. `None`
    /// when none was claimed.
    pub sweep_share: Option<f64>,
}

impl TargetStats {
    /// Age of the oldest pending message.
    pub fn oldest_age(&self) -> Option<Duration> {
        self.oldest_age_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// When the next scheduled message becomes pending; zero where it is overdue.
    pub fn next_due_in(&self) -> Option<Duration> {
        self.next_due_in_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok())
    }

    /// When nothing will be pending any more.
    pub fn empty_in(&self) -> Option<Duration> {
        self.empty_in_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}

/// A circuit breaker that was ever tripped.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BreakerRow {
    /// A target, or what several targets name as their `breaker_key`.
    pub key: String,
    /// `closed`, `open` or `half_open`.
    pub state: String,
}
