//! What happened.

use std::time::SystemTime;

use crate::message::MessageId;

/// One line of the audit log; or that a message was published, which the log has at level `all` only.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AuditEvent {
    /// When, by the server's clock.
    pub at: SystemTime,
    /// What: published, claimed, completed, failed, rescued, redriven, paused, …
    pub action: String,
    /// To which message; `None` for an event of a target.
    pub id: Option<MessageId>,
    /// Its source.
    pub source: Option<String>,
    /// Its target.
    pub target: Option<String>,
    /// Its record type.
    pub record_type: Option<String>,
    /// The attempt it was about.
    pub attempt: Option<i32>,
    /// The status before.
    pub old_status: Option<String>,
    /// The status after.
    pub new_status: Option<String>,
    /// Who: the session's application_name, else its role. `None`: nobody knows who published.
    pub by: Option<String>,
    /// The database role that was logged in.
    pub role: Option<String>,
    /// Who owned or took the message.
    pub owner: Option<String>,
    /// More, as a JSON object: the reason, the counters.
    pub details: Option<String>,
}

/// Some entries of the audit log, and where the next ones begin.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditPage {
    /// Newest first.
    pub events: Vec<AuditEvent>,
    /// Give it to the next call of the same filter; `None`: this is the end.
    pub next: Option<String>,
    /// The look ended before the page was full: it went back to then, and `next` goes on from there. `None`: the page is full, or
    /// all was looked at.
    pub looked_until: Option<SystemTime>,
}
