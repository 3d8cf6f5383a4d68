//! What a handler says about a message.

use std::time::Duration;

/// The closed list of handler results. An `Err` from a handler is [`Outcome::Retry`] with the policy's delay and the
/// error's text as reason; so are a panic and a timeout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Handled: the message is completed.
    Done,
    /// Handled, and completed by the handler in a transaction of its own, which has committed: see
    /// [`on_own_tx`](crate::ConsumerBuilder::on_own_tx). The database is asked; a message that is not completed is
    /// [`Outcome::Retry`] with that reason.
    Settled,
    /// Failed for now. Costs a retry; when none are left the message is failed for good.
    Retry {
        /// Not before this long from now; `None`: the policy's backoff.
        after: Option<Duration>,
        /// Kept as the message's `error_message`.
        reason: String,
    },
    /// Not now: scheduled again without costing a retry.
    Snooze {
        /// How long from now.
        after: Duration,
    },
    /// The dependency that this target's messages need is down: the message is postponed without costing a retry and the
    /// target's breaker opens, so that the whole fleet stops claiming until canaries come back well.
    Unavailable {
        /// Kept with the breaker.
        reason: String,
    },
    /// Failed for good, at once: no retry can help.
    Reject {
        /// Kept as the message's `error_message`.
        reason: String,
    },
}

impl Outcome {
    /// As telemetry names it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Settled => "settled",
            Self::Retry { .. } => "retry",
            Self::Snooze { .. } => "snooze",
            Self::Unavailable { .. } => "unavailable",
            Self::Reject { .. } => "reject",
        }
    }

    /// [`Outcome::Retry`] with the policy's backoff.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { after: None, reason: reason.into() }
    }

    /// [`Outcome::Retry`] after a delay of the handler's choice.
    pub fn retry_after(after: Duration, reason: impl Into<String>) -> Self {
        Self::Retry { after: Some(after), reason: reason.into() }
    }

    /// [`Outcome::Snooze`].
    pub fn snooze(after: Duration) -> Self {
        Self::Snooze { after }
    }

    /// [`Outcome::Unavailable`].
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }

    /// [`Outcome::Reject`].
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject { reason: reason.into() }
    }
}
