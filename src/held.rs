//! What this process holds, compared with what the database says it holds.
//!
//! A claim whose answer was lost with its connection may have been made: its messages are `processing` and owned by this
//! process, which lives, so nobody rescues them, and does not know them. Whoever claims next gives them back.

use std::{
    collections::HashSet,
    future::Future,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::RwLock;
use tracing::info;

use crate::{
    error::Result,
    message::{Delivery, MessageId},
    store::Store,
};

/// The messages claimed and not yet settled by all consumers of this process.
#[derive(Debug, Default)]
pub(crate) struct Held {
    ids: Mutex<HashSet<MessageId>>,
    /// Held shared by each claim until its messages are noted, alone while comparing.
    claims: RwLock<()>,
    /// Whether an answer was lost since the last comparison.
    doubt: AtomicBool,
}

impl Held {
    /// Runs a claim and notes what it claimed; first gives back what an earlier one claimed unseen.
    pub(crate) async fn claim(
        &self,
        store: &Store,
        owner: &str,
        claim: impl Future<Output = Result<Vec<Delivery>>>,
    ) -> Result<Vec<Delivery>> {
        self.compare(store, owner).await?;
        let _claiming = self.claims.read().await;
        let claimed = claim.await;
        match &claimed {
            Ok(deliveries) => self.with(|ids| ids.extend(deliveries.iter().map(|delivery| delivery.id))),
            Err(error) if error.is_lease_lost() => {}
            Err(_) => self.doubt.store(true, Ordering::Relaxed),
        }
        claimed
    }

    /// The messages are settled, or somebody else's.
    pub(crate) fn forget(&self, settled: impl IntoIterator<Item = MessageId>) {
        self.with(|ids| settled.into_iter().for_each(|id| drop(ids.remove(&id))));
    }

    /// Forgets the messages when the guard is dropped.
    pub(crate) fn forget_after(&self, settled: Vec<MessageId>) -> impl Drop {
        struct Guard<'a>(&'a Held, Vec<MessageId>);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.forget(self.1.drain(..));
            }
        }
        Guard(self, settled)
    }

    async fn compare(&self, store: &Store, owner: &str) -> Result<()> {
        if !self.doubt.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _alone = self.claims.write().await;
        if self.doubt.load(Ordering::Relaxed) {
            let held: Vec<MessageId> = self.with(|ids| ids.iter().copied().collect());
            let count = store.give_back(owner, &held).await?;
            if count > 0 {
                info!(count, owner, "gave back messages whose claim was not answered");
            }
            self.doubt.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashSet<MessageId>) -> T) -> T {
        f(&mut self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
