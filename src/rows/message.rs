//! Messages as they are stored.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::{filter::Status, message::MessageId, written::timestamp::rfc3339};

/// A message without its payload, as a list shows it. As JSON it is what `doorbell list --json` prints of each.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MessageRow {
    /// Its id.
    pub id: MessageId,
    /// Who published it.
    pub source: String,
    /// For whom.
    pub target: String,
    /// What it is.
    #[serde(rename = "type")]
    pub record_type: String,
    /// What is happening to it.
    pub status: Status,
    /// Higher goes first.
    pub priority: i32,
    /// How often it was claimed.
    pub attempt: i32,
    /// How many retries it has used.
    pub retry_count: i32,
    /// How many consumers died with it in a row.
    pub crash_count: i32,
    /// How often it was put back after it had ended.
    pub redrive_count: i32,
    /// When it was published.
    #[serde(serialize_with = "exactly")]
    pub created_at: SystemTime,
    /// When it last changed.
    #[serde(serialize_with = "exactly")]
    pub updated_at: SystemTime,
    /// When it becomes pending, if it is scheduled.
    #[serde(serialize_with = "exactly_if_any")]
    pub available_at: Option<SystemTime>,
    /// Who owns it, if it is being handled.
    pub owner: Option<String>,
    /// Its last error message.
    pub reason: Option<String>,
}

fn exactly<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    rfc3339(*time).serialize(serializer)
}

fn exactly_if_any<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(serializer)
}

/// Some messages of a list, and where the next ones begin.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// In the order asked for.
    pub messages: Vec<MessageRow>,
    /// Give it to the next call of the same filter and order; `None`: this is the end.
    pub next: Option<String>,
    /// The look ended before the page was full: messages back to this one's time of publishing, or in another order as far as
    /// it, were looked at, and `next` goes on from there. `None`: the page is full, or all was looked at.
    pub looked_until: Option<SystemTime>,
}

/// A message in full.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoredMessage {
    /// What a list shows of it, too.
    pub row: MessageRow,
    /// When it was completed.
    pub processed_at: Option<SystemTime>,
    /// When its claim ends by itself, if it has a lease of its own.
    pub lease_until: Option<SystemTime>,
    /// When nobody wants it any more, if it still waits then; `None`: it is always wanted, or has ended.
    pub expires_at: Option<SystemTime>,
    /// Under which key it may still be replaced; `None`: nobody replaces it any more, or ever did.
    pub coalescing: Option<Coalescing>,
    /// Its own limit of retries, if it has one.
    pub max_retries: Option<i32>,
    /// Its headers, as a JSON object.
    pub headers: Option<String>,
    /// Its ordering key.
    pub ordering_key: Option<String>,
    /// Its dedup key.
    pub dedup_key: Option<String>,
    /// The message that it is a copy of, if it was handed to a subscriber or replayed.
    pub origin: Option<MessageId>,
    /// Whether it was moved to the archive.
    pub archived: bool,
    /// Its payload as JSON, if it was asked for.
    pub payload: Option<String>,
}

/// How a message may be [replaced](crate::Message::coalesce) until somebody has taken it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Coalescing {
    /// Whoever publishes under this key replaces it.
    pub key: String,
    /// How often it was, since it was published.
    pub replaced: u32,
    /// Until when it is put off at most, as whoever published under the key last has said; `None`: it does not wait for its
    /// time.
    pub put_off_until: Option<SystemTime>,
}

/// One reason why a message is not running, or would not be when the one before it is gone.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// For programs: `paused`, `no_consumer`, …; all are listed at `integration.explain`.
    pub code: String,
    /// For people.
    pub sentence: String,
    /// What to type; `None` when nothing needs to be done.
    pub fix: Option<String>,
    /// The facts behind the sentence, as a JSON object.
    pub details: String,
}
