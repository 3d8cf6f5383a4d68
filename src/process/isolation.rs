//! One suspect at a time in a process, beside ordinary messages: what dies with a suspect may be its doing, and never that of
//! another one. No ordinary message waits for a suspect, and no suspect for an ordinary one: a process would stand still for
//! as long as its slowest handler runs.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

/// The only owner of that rule.
#[derive(Debug, Default)]
pub(crate) struct Isolation(Arc<Mutex<()>>);

/// Held while a suspect runs.
pub(crate) type Alone = OwnedMutexGuard<()>;

impl Isolation {
    /// Waits until no other suspect runs. Who waits has claimed nothing yet, so another process may be faster.
    pub(crate) async fn alone(&self) -> Alone {
        self.0.clone().lock_owned().await
    }
}
