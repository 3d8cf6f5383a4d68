//! What the maintenance did, and what it would do.

use serde::Serialize;

/// What [`Operator::maintain`](crate::operate::Operator::maintain) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Maintained {
    /// Messages of dead consumers that were put back.
    pub rescued: usize,
    /// Scheduled messages whose time had come.
    pub promoted: usize,
    /// Messages that were handed on for topics, or copied for who subscribed late.
    pub copied: usize,
    /// Messages of extracts that were due.
    pub extracted: usize,
    /// Deltas of counters that were added up.
    pub folded: usize,
    /// Completed messages that were moved to the archive.
    pub archived: usize,
    /// Messages past retention that were deleted.
    pub purged: usize,
    /// Dedup keys and rows of statistics that were deleted, their time being over.
    pub expired: usize,
    /// Partitions of months to come.
    pub partitions_created: usize,
    /// Partitions past retention.
    pub partitions_dropped: usize,
    /// Counters that differed from the table and were repaired; compared once a day. More than 0: triggers were off.
    pub recounted: usize,
    /// Partitions past retention that somebody reads: they are dropped another time.
    pub partitions_busy: usize,
}

impl Maintained {
    /// Whether nothing was done that an operator would want to know: folding goes on all the time.
    pub fn is_idle(&self) -> bool {
        Self { folded: 0, partitions_busy: 0, ..*self } == Self::default()
    }
}

/// A kind of work that maintenance would do now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MaintenanceDue {
    /// What: rescue, promote, fold, archive completed, purge failed, drop partition, …
    pub task: String,
    /// The target or table.
    pub object: String,
    /// How many messages, rows or partitions.
    pub count: i64,
}
