//! What is said of a task that runs a handler: when it began, how it ended.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;

use crate::{handler::timeout_reason, outcome::Outcome, store::Claim};

/// A handler that its timeout did not stop (it blocks its thread) is given up this much later.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// When a task began; unset until its turn comes on the runtime.
#[derive(Clone, Debug, Default)]
pub(super) struct Begun(Arc<OnceLock<Instant>>);

impl Begun {
    pub(super) fn now(&self) -> Instant {
        *self.0.get_or_init(Instant::now)
    }

    pub(super) fn at(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}

/// How the run of a message's handler ended.
#[derive(Clone, Debug)]
pub(super) enum Ran {
    /// To be settled.
    Outcome(Outcome),
    /// Completed already, in the transaction of its handler.
    Completed,
    /// The transaction of its handler found the lease lost, and was rolled back.
    LeaseLost,
}

/// The end of a task that ran the handler of leased messages.
#[derive(Debug)]
pub(super) enum Handled {
    One {
        claim: Claim,
        ran: Ran,
        canary: bool,
        took: Duration,
        /// How long of that its handler took.
        handler: Duration,
    },
    /// A batch, by its first message.
    Several { claim: Claim, became: Vec<Became>, took: Duration },
}

/// What becomes of a message whose batch has ended.
#[derive(Clone, Debug)]
pub(super) enum Became {
    Ran(Ran),
    /// It is handled once more: what was done is undone because of others.
    Again,
    /// It is handled by itself: the batch has failed, which says nothing about it.
    Alone,
}

/// What becomes of a message whose handler its timeout did not stop.
pub(super) fn did_not_stop(limit: Duration) -> Outcome {
    Outcome::retry(timeout_reason(limit) + " and did not stop")
}
