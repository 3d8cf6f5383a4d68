//! What names a message that was claimed: the one way from a delivery to the statements that settle it.

use crate::message::{Delivery, MessageId};

/// A message as one claim took it. Whoever settles it names all of this, and the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    id: MessageId,
    attempt: i32,
}

impl Claim {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        Self { id: delivery.id, attempt: delivery.attempt }
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
}

impl Fence {
    pub(super) fn of(claims: &[Claim]) -> Self {
        let mut fence = Self::default();
        claims.iter().for_each(|claim| fence.push(*claim));
        fence
    }

    pub(super) fn push(&mut self, claim: Claim) {
        let Claim { id, attempt } = claim;
        self.ids.push(id);
        self.attempts.push(attempt);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
