//! Extracts: tables and queries whose rows are read and published.

use std::time::{Duration, SystemTime};

/// What [`Operator::extract`](crate::operate::Operator::extract) is to read, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extract {
    /// Its name, by which it goes on, is paused and ended.
    pub name: String,
    /// Who gets the rows: a queue or a topic.
    pub target: String,
    /// What is read.
    pub from: ExtractFrom,
    /// The columns that tell rows apart; empty: the table's primary key.
    pub key: Vec<String>,
    /// `None`: all rows are read once, by [`Operator::extract_more`](crate::operate::Operator::extract_more).
    pub watermark: Option<Watermark>,
    /// As which application they are published; `None`: `extract`.
    pub source: Option<String>,
    /// What the record type begins with, before `.read`; `None`: schema and table, or the name.
    pub record_type: Option<String>,
}

impl Extract {
    /// An extract that reads all rows once.
    pub fn new(name: impl Into<String>, target: impl Into<String>, from: ExtractFrom) -> Self {
        let (name, target) = (name.into(), target.into());
        Self { name, target, from, key: Vec::new(), watermark: None, source: None, record_type: None }
    }
}

/// What an extract reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtractFrom {
    /// A table or view, as SQL names it: `orders`, `shop.orders`.
    Table(String),
    /// A SELECT, in which tables have their schemas' names. (Those of other databases have them in any case.)
    Query(String),
}

/// How new and changed rows are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The column that grows with every change: a time, or a number from a sequence without a cache.
    pub column: String,
    /// How often maintenance looks, a second at least.
    pub every: Duration,
    /// How late a clock may be that writes the column.
    pub grace: Duration,
    /// Only what is greater than this; `None`: everything.
    pub after: Option<String>,
}

impl Watermark {
    /// Looks every 5 s for everything; clocks may be 10 s late.
    pub fn new(column: impl Into<String>) -> Self {
        let (every, grace) = (Duration::from_secs(5), Duration::from_secs(10));
        Self { column: column.into(), every, grace, after: None }
    }
}

/// What [`Operator::extract_more`](crate::operate::Operator::extract_more) has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extracted {
    /// Messages.
    pub published: u64,
    /// Rows that could not be published; the audit log has them as `extract_skipped`.
    pub skipped: u64,
    /// There are no more: for now or, without a watermark, at all.
    pub is_done: bool,
}

/// An extract as it stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExtractRow {
    /// Its name.
    pub name: String,
    /// The table it reads, if it reads one.
    pub table: Option<String>,
    /// The query, if it reads that.
    pub query: Option<String>,
    /// Whether they are another database's.
    pub is_foreign: bool,
    /// Who gets the rows.
    pub target: String,
    /// As which application they are published.
    pub source: String,
    /// What the record type begins with.
    pub record_type: String,
    /// The columns that tell rows apart.
    pub key: Vec<String>,
    /// The column that grows, if it looks again and again.
    pub watermark: Option<String>,
    /// Every how many seconds, if it does.
    pub every_seconds: Option<f64>,
    /// How far all rows were read: a watermark, or the keys of a row.
    pub place: Option<String>,
    /// How many messages it has published.
    pub published: i64,
    /// How many rows could not be published.
    pub skipped: i64,
    /// How many rows the planner expected when it was made.
    pub estimate: Option<i64>,
    /// When it looked last.
    pub looked_at: Option<SystemTime>,
    /// When all rows were read, if they were.
    pub ended_at: Option<SystemTime>,
    /// Why its last look failed, if it did.
    pub last_error: Option<String>,
    /// By whom it was paused, if it is.
    pub paused_by: Option<String>,
}
