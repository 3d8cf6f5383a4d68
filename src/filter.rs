//! Which messages: what lists, and the verbs that act on many, go by.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{
    error::{Error, Result},
    message::MessageId,
};

/// What is happening to a message, in the words of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Can be claimed.
    Pending,
    /// Waits for its time: delayed, in backoff, or snoozed.
    Scheduled,
    /// Claimed and not settled.
    Processing,
    /// Handled.
    Completed,
    /// The dead letter state.
    Failed,
    /// Stopped by an operator.
    Cancelled,
}

impl Status {
    /// Every status, in the order of a message's life.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Scheduled, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Scheduled => "scheduled",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == word);
        found.ok_or_else(|| {
            Error::invalid(format!("{word:?} is no status; they are: {}", Self::ALL.map(Self::as_str).join(", ")))
        })
    }
}

/// Which messages; what is `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// With this status.
    pub status: Option<Status>,
    /// For this target.
    pub target: Option<String>,
    /// Of this record type.
    pub record_type: Option<String>,
    /// From this source.
    pub source: Option<String>,
    /// Whose reason (the last error message) matches this LIKE pattern.
    pub reason: Option<String>,
    /// Published longer ago than this, by the server's clock.
    pub older_than: Option<Duration>,
    /// Published then or later.
    pub published_since: Option<Moment>,
    /// Published before then.
    pub published_until: Option<Moment>,
    /// With this id or a greater one.
    pub first_id: Option<MessageId>,
    /// With this id or a smaller one.
    pub last_id: Option<MessageId>,
    /// Last changed then or later: for failed ones, when they failed.
    pub changed_since: Option<Moment>,
    /// Last changed before then.
    pub changed_until: Option<Moment>,
    /// With this ordering key.
    pub ordering_key: Option<String>,
    /// With this dedup key.
    pub dedup_key: Option<String>,
    /// With these headers, a JSON object, among others.
    pub headers: Option<String>,
    /// Whose payload this SQL/JSON path predicate is true of: `$.order == 7`.
    pub payload: Option<String>,
    /// That this owner completed, as far as the audit log knows.
    pub completed_by: Option<String>,
    /// That were put back before after they had ended, or that never were.
    pub redriven: Option<bool>,
}

/// Which entries of the audit log; what is `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// About this message.
    pub id: Option<MessageId>,
    /// About this target or messages of it.
    pub target: Option<String>,
    /// Of this action: completed, failed, redriven, paused, …
    pub action: Option<String>,
    /// By whom: the session's application_name.
    pub by: Option<String>,
    /// By whom: the database role that was logged in.
    pub role: Option<String>,
    /// Of messages that this owner had.
    pub owner: Option<String>,
    /// Written then or later.
    pub since: Option<Moment>,
    /// Written before then.
    pub until: Option<Moment>,
}

/// A point in time, by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Then.
    At(SystemTime),
    /// So long ago.
    Ago(Duration),
    /// The last time that the day, in UTC, was so old.
    TimeOfDay(Duration),
}

impl Moment {
    /// As a statement takes it: then, so many seconds ago, or after midnight.
    pub(crate) fn parts(moment: Option<Self>) -> (Option<SystemTime>, Option<f64>, Option<f64>) {
        match moment {
            None => (None, None, None),
            Some(Self::At(time)) => (Some(time), None, None),
            Some(Self::Ago(age)) => (None, Some(age.as_secs_f64()), None),
            Some(Self::TimeOfDay(time)) => (None, None, Some(time.as_secs_f64())),
        }
    }
}

/// In which order messages are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListOrder {
    /// As they are claimed: by priority, then age. Of pending messages only.
    Queue,
    /// Next due first. Of scheduled messages only.
    Due,
    /// By id.
    Oldest,
    /// By id, backwards.
    Newest,
    /// By target, and of each as they are claimed, due or by id: the cheapest way through all that are pending, scheduled,
    /// processing or failed, whatever their target.
    Target,
}

impl ListOrder {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Due => "due",
            Self::Oldest => "oldest",
            Self::Newest => "newest",
            Self::Target => "target",
        }
    }
}
