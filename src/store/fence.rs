//! What names a message that was claimed: the one way from a delivery to the statements that settle it.

use std::time::SystemTime;

use tokio_postgres::Row;

use crate::{
    error::Result,
    message::{Delivery, MessageId},
};

/// A message as one claim took it. Whoever settles it names all of this, and the owner. An id alone names no message: after
/// an asynchronous failover the new primary gives ids out again, and `created_at` tells the messages apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    id: MessageId,
    attempt: i32,
    created_at: SystemTime,
}

impl Claim {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        Self { id: delivery.id, attempt: delivery.attempt, created_at: delivery.created_at }
    }

    /// As a statement returns it.
    pub(super) fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { id: row.try_get("id")?, attempt: row.try_get("attempt")?, created_at: row.try_get("created_at")? })
    }

    /// For logs.
    pub(crate) fn id(self) -> MessageId {
        self.id
    }

    /// For logs.
    pub(crate) fn attempt(self) -> i32 {
        self.attempt
    }
}

/// Claims as a statement gets them: one array for each part.
#[derive(Debug, Default)]
pub(super) struct Fence {
    pub(super) ids: Vec<MessageId>,
    pub(super) attempts: Vec<i32>,
    pub(super) created: Vec<SystemTime>,
}

impl Fence {
    pub(super) fn of(claims: &[Claim]) -> Self {
        let mut fence = Self::default();
        claims.iter().for_each(|claim| fence.push(*claim));
        fence
    }

    pub(super) fn push(&mut self, claim: Claim) {
        let Claim { id, attempt, created_at } = claim;
        self.ids.push(id);
        self.attempts.push(attempt);
        self.created.push(created_at);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
