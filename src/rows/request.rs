//! Requests.

use std::time::SystemTime;

use crate::{filter::Status, message::MessageId};

/// A request for whose answer somebody waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WaitingRequest {
    /// Its id.
    pub id: MessageId,
    /// Who asks.
    pub source: String,
    /// Whom.
    pub target: String,
    /// For what.
    pub record_type: String,
    /// What is happening to it.
    pub status: Status,
    /// How often it was claimed.
    pub attempt: i32,
    /// When it was published.
    pub created_at: SystemTime,
    /// When nobody waits any more.
    pub expires_at: SystemTime,
    /// Who has it in hand, if anybody has.
    pub owner: Option<String>,
}
