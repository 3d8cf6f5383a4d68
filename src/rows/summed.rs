//! Messages summed up.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use crate::filter::Status;

/// Messages of a target whose reasons are alike.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ErrorGroup {
    /// For whom they are.
    pub target: String,
    /// What is alike in their reasons, as [`Filter::reason`](crate::operate::Filter::reason) takes it; `None`: they have none.
    pub reason_like: Option<String>,
    /// How many failed for good.
    pub failed: i64,
    /// How many of these had been redriven before.
    pub failed_again: i64,
    /// How many wait for a retry.
    pub retrying: i64,
    /// When the first of them came to it.
    pub since: SystemTime,
    /// When the last of them did.
    pub last: SystemTime,
    /// How long ago, by the server's clock, the first and the last of them did.
    pub ages: (Duration, Duration),
    /// The id of one of them.
    pub example: i64,
    /// Whether every failed message was looked at; else 100,000 of them, and as many scheduled ones, were.
    pub all_seen: bool,
}

/// What happened to messages, minute by minute or by ten minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// How much time each entry is about: one minute for up to three hours, else ten.
    pub step: Duration,
    /// By the beginning of its step, and by the name of the action, as the audit log has it, how often: published, claimed,
    /// completed, errored, …; and `found_bell`, `found_drain` and `found_sweep`, how claimed messages were found. Steps in which
    /// nothing happened are left out.
    pub actions: BTreeMap<SystemTime, BTreeMap<String, i64>>,
    /// When it was read, by the clock of the database.
    pub until: SystemTime,
}

/// How messages of one source fared at a target: of those that were published in the last 24 hours, and up to ten minutes more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorRate {
    /// Who published them.
    pub source: String,
    /// How many there were; those that were archived or deleted since, too.
    pub published: i64,
    /// How many of them are failed now.
    pub failed: i64,
}

/// Messages of a target that have not ended, of one kind and source.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BacklogRow {
    /// For whom they are.
    pub target: String,
    /// What they are.
    pub record_type: String,
    /// Who published them.
    pub source: String,
    /// What is happening to them.
    pub status: Status,
    /// How many there are.
    pub messages: i64,
    /// When the oldest was published.
    pub oldest_at: SystemTime,
    /// How long ago that was, by the server's clock.
    pub oldest_age: Duration,
}
