//! In-transaction mode: messages are not leased but locked by the transaction that handles and completes them.
//!
//! Nothing is written when they are taken and one row version when they are done, instead of two; a process that dies gives
//! them back at once, with its connection. The price is a transaction open for as long as a batch is handled, which holds
//! back vacuum: it is capped, and handlers must be short. A batch in which one handler does not end well is rolled back
//! as a whole, and its messages are taken again with leases, which is where failures are counted.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::Transaction;
use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use super::{
    batch::{self, Source},
    context::Context,
    looking::Look,
    places::Observed,
};
use crate::{
    error::Result,
    message::Delivery,
    store::{Looked, Ranges},
};

/// What a batch found, told before it is handled, so that the next one can be fetched meanwhile.
pub(super) struct HeldLook {
    pub(super) look: Look,
    pub(super) observed: Observed,
    pub(super) full: bool,
    pub(super) took: Duration,
}

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
    let mut hold = Hold { owner, look, ranges, limit, cap, tell, took: 0 };
    let _beside_others = context.process.isolation().beside_others().await;
    let completed = match batch::run(&context, Source::Held(&mut hold)).await {
        Ok(Ok(completed)) => Some(completed),
        Ok(Err(_)) => None,
        Err(error) => {
            let (target_app, count) = (&context.target, hold.took);
            warn!(%target_app, count, ?error, "a transaction that held messages failed; they are taken with leases");
            None
        }
    };
    HeldBatch {
        look,
        limit,
        took: hold.took,
        completed: completed.unwrap_or(0),
        refused: completed.is_none(),
        duration: began.elapsed(),
    }
}

/// A batch to be held.
pub(super) struct Hold {
    owner: Arc<str>,
    look: Look,
    ranges: Option<Ranges>,
    limit: usize,
    cap: Duration,
    tell: mpsc::UnboundedSender<HeldLook>,
    took: usize,
}

impl Hold {
    /// Locks the messages for the transaction, and says until when they may be begun; `None`: they may not be held now.
    pub(super) async fn take(
        &mut self,
        context: &Context,
        tx: &Transaction<'_>,
    ) -> Result<Option<(Vec<Delivery>, Instant)>> {
        let (look, limit, asked) = (self.look, self.limit, Instant::now());
        let request = context.request(&self.owner);
        let types = context.registry.tx_types(context.config.record_types.as_deref());
        let holding = context.store.hold_in(tx, &request, &types, limit, self.ranges.as_ref(), look.why(), self.cap);
        let holding = context.store.within_deadline("hold messages", holding);
        let count = |looked: &Option<Looked>| looked.as_ref().map_or(0, |looked| looked.deliveries.len());
        let Some(looked) = context.claiming(look.why(), holding, count).await? else { return Ok(None) };
        self.took = looked.deliveries.len();
        let full = self.took >= limit || request.may_be_cut(&looked.deliveries);
        let observed = Observed::of(&looked);
        // The loop is gone only when the process is being torn down.
        let _ = self.tell.send(HeldLook { look, observed, full, took: asked.elapsed() });
        Ok(Some((looked.deliveries, Instant::now() + self.cap)))
    }
}
