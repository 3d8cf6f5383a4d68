//! Captures: tables whose changes are published.

use std::time::SystemTime;

/// What [`Operator::capture`](crate::operate::Operator::capture) is to publish, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// The table, as SQL names it: `orders`, `shop.orders`.
    pub table: String,
    /// Who gets its changes: a queue or a topic.
    pub target: String,
    /// As which application they are published; `None`: `capture`.
    pub source: Option<String>,
    /// What record types begin with, before `.insert`, `.update`, `.delete` or `.truncate`; `None`: schema and table.
    pub record_type: Option<String>,
    /// Only these columns, and the primary key; empty: all.
    pub columns: Vec<String>,
    /// Only changes of which this jsonpath condition is true, such as `$.new.total > 100`; `None`: all.
    pub when: Option<String>,
}

/// A table that is captured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CaptureRow {
    /// The table.
    pub table: String,
    /// Who gets its changes.
    pub target: String,
    /// As which application they are published.
    pub source: String,
    /// What their record types begin with.
    pub record_type: String,
    /// Only these columns; empty: all.
    pub columns: Vec<String>,
    /// Only changes of which this is true.
    pub when: Option<String>,
    /// Whether its triggers are there and fire, and its primary key is the one it had.
    pub is_on: bool,
    /// Since when.
    pub captured_at: SystemTime,
}
