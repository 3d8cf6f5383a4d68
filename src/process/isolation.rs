//! A suspect runs alone in its process: it waits until every running handler is done, and new ones wait for it.

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The only owner of that rule.
#[derive(Debug, Default)]
pub(crate) struct Isolation(Arc<RwLock<()>>);

/// Held while a handler runs beside others.
pub(crate) type BesideOthers = OwnedRwLockReadGuard<()>;

/// Held while a suspect runs.
pub(crate) type Alone = OwnedRwLockWriteGuard<()>;

impl Isolation {
    /// Waits while a suspect runs, or wants to.
    pub(crate) async fn beside_others(&self) -> BesideOthers {
        self.0.clone().read_owned().await
    }

    /// Waits until no other handler runs.
    pub(crate) async fn alone(&self) -> Alone {
        self.0.clone().write_owned().await
    }
}
