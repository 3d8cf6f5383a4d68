//! Locking messages for the transaction that is to handle them.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::Transaction;
use tokio::{sync::mpsc, time::Instant};

use super::{context::Context, looking::Look, observed::Observed};
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
    /// Holds up to `limit` messages, for `cap` at most, and tells what it found.
    pub(super) fn new(
        owner: Arc<str>,
        (look, ranges): (Look, Option<Ranges>),
        (limit, cap): (usize, Duration),
        tell: mpsc::UnboundedSender<HeldLook>,
    ) -> Self {
        Self { owner, look, ranges, limit, cap, tell, took: 0 }
    }

    /// Messages that were locked.
    pub(super) fn took(&self) -> usize {
        self.took
    }

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
