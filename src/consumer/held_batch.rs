//! In-transaction mode: messages are not leased but locked by the transaction that handles and completes them.
//!
//! Nothing is written when they are taken and one row version when they are done, instead of two; a process that dies
//! gives them back at once, with its connection. The price is a transaction open for as long as a batch is handled,
//! which holds back vacuum: it is capped, and handlers must be short. A batch in which one handler does not end well is
//! rolled back as a whole, and its messages are taken again with leases, which is where failures are counted.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use super::{
    batch::{self, Source},
    context::Context,
    handling::Handling,
    hold::{HeldLook, Hold},
    looking::Look,
};
use crate::{
    outcome::Outcome,
    store::{Claim, Ranges},
};

/// How a batch ended.
#[derive(Debug)]
pub(super) struct HeldBatch {
    pub(super) look: Look,
    pub(super) limit: usize,
    /// Messages that were locked.
    pub(super) took: usize,
    /// Messages completed.
    pub(super) completed: usize,
    /// Nothing was done: some handler did not end well, the transaction failed, or the target does not allow it.
    pub(super) refused: bool,
    pub(super) duration: Duration,
    /// Messages that are leased now.
    pub(super) kept: Vec<Kept>,
    /// How long plain handlers took, together; nothing for transactional ones, which are held however long they take.
    pub(super) handlers: Duration,
}

/// A message that was held and is leased now.
#[derive(Debug)]
pub(super) enum Kept {
    /// Its handler ended otherwise than well.
    Ended(Claim, Outcome),
    Running(Handling),
}

impl Kept {
    pub(super) fn claim(&self) -> Claim {
        match self {
            Self::Ended(claim, _) => *claim,
            Self::Running(handling) => handling.claim(),
        }
    }
}

impl HeldBatch {
    /// Nothing was done.
    pub(super) fn refused(look: Look, limit: usize) -> Self {
        let (kept, handlers, duration) = (Vec::new(), Duration::ZERO, Duration::ZERO);
        Self { look, limit, took: 0, completed: 0, refused: true, duration, kept, handlers }
    }

    /// Messages whose handlers were begun, and which were not left as they were.
    pub(super) fn begun(&self) -> usize {
        self.completed + self.kept.len()
    }
}

/// Holds up to `limit` messages and handles them, for `cap` at most. Tells what it found before.
pub(super) async fn run(
    context: Arc<Context>,
    owner: Arc<str>,
    (look, ranges): (Look, Option<Ranges>),
    (limit, cap): (usize, Duration),
    tell: mpsc::UnboundedSender<HeldLook>,
) -> HeldBatch {
    let began = Instant::now();
    let mut hold = Hold::new(owner, (look, ranges), (limit, cap), tell);
    let completed = match batch::run(&context, Source::Held(&mut hold)).await {
        Ok(Ok(completed)) => Some(completed),
        Ok(Err(_)) => None,
        Err(error) => {
            let (target_app, count) = (&context.target, hold.took());
            warn!(%target_app, count, ?error, "a transaction that held messages failed; they are taken with leases");
            None
        }
    };
    HeldBatch {
        took: hold.took(),
        completed: completed.unwrap_or(0),
        refused: completed.is_none(),
        duration: began.elapsed(),
        ..HeldBatch::refused(look, limit)
    }
}
