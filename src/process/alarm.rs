//! The alarm clock: sleeps until the next scheduled message of our targets is due, and promotes it.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{bell::Bell, registration::Registration};
use crate::{error::Result, outage::Outage, store::Store};

/// Longest sleep; a message due later is found by the next look.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// Promotes for ever. `earlier` is rung when something may be due earlier than the alarm is set for.
pub(super) async fn run(store: Store, registration: Arc<Registration>, earlier: Arc<Bell>) {
    let mut outage = Outage::new(
        "scheduled messages could not be looked for; trying again until they can",
        "scheduled messages are looked for again",
    );
    loop {
        let pause = match promote(&store, &registration.targets()).await {
            Ok(due_in) => {
                outage.over();
                due_in.unwrap_or(SLEEP_MAX).min(SLEEP_MAX)
            }
            Err(error) => outage.failed(&error),
        };
        let _ = timeout(pause, earlier.rung()).await;
    }
}

/// Promotes what is due; returns how long until the next one is.
async fn promote(store: &Store, targets: &[String]) -> Result<Option<Duration>> {
    if targets.is_empty() {
        return Ok(None);
    }
    store.promote(targets).await?;
    store.next_due(targets).await
}
