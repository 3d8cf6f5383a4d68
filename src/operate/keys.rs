//! Ordering keys: what waits for what, and letting a blocked one go on.

use super::Operator;
use crate::{error::Result, message::MessageId, rows::KeyRow};

/// What becomes of messages that failed for good and that others of their key wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    /// They are tried again, with all their retries, before all that waits.
    Redrive,
    /// They are cancelled, and the next one of the key goes on without them.
    Cancel,
}

impl Operator {
    /// Ordering keys of a target of which messages wait, by name, after one; and what for. Empty: none waits.
    ///
    /// # Errors
    /// The database's.
    pub async fn keys(&self, target: &str, limit: u32, after: Option<&str>) -> Result<Vec<KeyRow>> {
        self.core.store().keys(target, limit, after).await
    }

    /// Messages that failed for good and that others of their key wait for, of one target or all.
    ///
    /// # Errors
    /// The database's.
    pub async fn blocked_keys(&self, target: Option<&str>, limit: u32) -> Result<Vec<KeyRow>> {
        self.core.store().blocked_keys(target, limit).await
    }

    /// How many keys of each target are blocked. Targets without any are left out.
    ///
    /// # Errors
    /// The database's.
    pub async fn count_blocked_keys(&self) -> Result<Vec<(String, i64)>> {
        self.core.store().count_blocked_keys().await
    }

    /// Lets a key go on that is blocked. Returns the messages that it was blocked by. Empty: it was not.
    ///
    /// # Errors
    /// The database's: somebody has the message locked, or refuses to have it changed.
    pub async fn unblock(&self, target: &str, key: &str, how: Unblock) -> Result<Vec<MessageId>> {
        let verb = match how {
            Unblock::Redrive => "redrive",
            Unblock::Cancel => "cancel",
        };
        self.core.store().unblock(target, key, verb).await
    }
}
