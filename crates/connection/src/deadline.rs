//! The time that one host may take, and what is said when it is used up.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::failure::Failure;

/// A point in time until which a host must have let us in; none is no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    end: Option<Instant>,
}

impl Deadline {
    pub(super) fn after(limit: Option<Duration>) -> Self {
        Self { end: limit.and_then(|limit| Instant::now().checked_add(limit)) }
    }

    /// The part of the remaining time for the next of `ways` ways to try, so that the first address of a name cannot
    /// use up what belongs to the second.
    pub(super) fn share(self, ways: usize) -> Self {
        let now = Instant::now();
        let ways = u32::try_from(ways.max(1)).unwrap_or(u32::MAX);
        Self { end: self.end.map(|end| now + end.saturating_duration_since(now) / ways) }
    }

    /// Runs one step of connecting within the limit.
    pub(super) async fn step<T>(self, doing: &str, step: impl Future<Output = T>) -> Result<T, Failure> {
        match self.end {
            None => Ok(step.await),
            Some(end) => timeout_at(end, step).await.map_err(|_| Failure::new(format!("timed out while {doing}"))),
        }
    }
}
