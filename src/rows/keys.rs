//! Ordering keys.

use std::{fmt, time::SystemTime};

use crate::message::MessageId;

/// An ordering key of which messages wait.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyRow {
    /// For whom they are.
    pub target: String,
    /// The key.
    pub key: String,
    /// What its messages wait for.
    pub state: KeyState,
    /// The message that the others wait for, or the next one where the key is free.
    pub message: Option<MessageId>,
    /// Why that one failed, where it did.
    pub reason: Option<String>,
    /// How many messages wait, counted up to 1,000.
    pub waiting: i64,
    /// When the oldest of these was published; of a blocked key, when it was blocked.
    pub since: Option<SystemTime>,
}

/// What the messages of an ordering key wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// For a consumer.
    Free,
    /// For a message that is being handled.
    Busy,
    /// For a message that is tried again at its time, or runs alone because a consumer died that had it.
    Waits,
    /// For somebody to say what becomes of a message that failed for good.
    Blocked,
}

impl KeyState {
    pub(crate) fn from_sql(state: &str) -> Self {
        match state {
            "busy" => Self::Busy,
            "waits" => Self::Waits,
            "blocked" => Self::Blocked,
            _ => Self::Free,
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Free => "free",
            Self::Busy => "busy",
            Self::Waits => "waits",
            Self::Blocked => "blocked",
        })
    }
}
