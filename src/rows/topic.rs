//! Topics, and who is subscribed to them.

use std::time::SystemTime;

use crate::{filter::Moment, message::MessageId};

/// What [`Operator::subscribe`](crate::operate::Operator::subscribe) is to do: that a target gets a copy of what is published
/// to another one.
#[derive(Clone, Debug, Default)]
pub struct Subscription {
    /// What it is published to: made a topic, whose messages nobody consumes, unless it is to be tapped.
    pub topic: String,
    /// Who gets a copy.
    pub target: String,
    /// Of these record types only: names, or patterns of words between dots, where `*` is one word and `#` any number of them
    /// (`order.*`, `order.#`). Empty: of all.
    pub types: Vec<String>,
    /// From these applications only. Empty: from all.
    pub sources: Vec<String>,
    /// What was published since then, too, without gap or double, as the maintenance comes to it. `None`: only what is
    /// published from now on.
    pub since: Option<Moment>,
    /// The topic stays the queue it is, whose own messages go on as ever.
    pub tap: bool,
}

/// A topic or a tapped queue, and one of its subscribers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicRow {
    /// What messages are published to.
    pub topic: String,
    /// Whether it is a queue with consumers of its own.
    pub tapped: bool,
    /// Who gets copies; `None`: nobody.
    pub target: Option<String>,
    /// Of which record types; empty: of all.
    pub types: Vec<String>,
    /// From which applications; empty: from all.
    pub sources: Vec<String>,
    /// When it subscribed.
    pub subscribed_at: Option<SystemTime>,
    /// It gets what was published before, too, and not all of that has been copied yet.
    pub is_behind: bool,
    /// How many messages wait at the subscriber or are being handled there.
    pub waiting: Option<i64>,
    /// How many messages of the topic nobody took, since the beginning.
    pub unrouted: i64,
}

/// What [`Operator::replay`](crate::operate::Operator::replay) hands out again; what is empty or `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Whose completed messages, in the table and the archive.
    pub target: String,
    /// Where the copies go; `None`: to the same target, of a topic to its subscribers.
    pub to: Option<String>,
    /// Published then or later.
    pub since: Option<Moment>,
    /// Published before then; `None`: before now.
    pub until: Option<Moment>,
    /// Of these record types: names and patterns, as [`Subscription::types`].
    pub types: Vec<String>,
    /// From these applications.
    pub sources: Vec<String>,
    /// Copy nothing; say how many would be.
    pub dry_run: bool,
}

/// What became of a part of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayPart {
    /// How many messages were copied, or would be.
    pub copied: usize,
    /// Since when the messages were published, if that was asked for.
    pub since: Option<SystemTime>,
    /// Before when the messages were published: what was asked for, or when the replay began.
    pub until: SystemTime,
    /// Where the next part begins; `None`: that was the end.
    pub next: Option<MessageId>,
}
