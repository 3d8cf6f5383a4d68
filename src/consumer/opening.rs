//! Waiting for a gate that opens by itself: a target that may be claimed from only so often lets others through after a time.

use std::sync::Arc;

use tracing::debug;

use super::context::Context;
use crate::backoff;

/// Waits until the target's rate lets messages through. False: nothing of that kind keeps them back. Where the database does not say,
/// a sweep looks.
pub(super) async fn opens(context: Arc<Context>) -> bool {
    match context.store.opens_in(&context.target).await {
        Ok(Some(opens_in)) => {
            // Not all processes at once: one of them takes what there is, and a twentieth of the time is one entry.
            tokio::time::sleep(opens_in + backoff::delay(opens_in / 20, opens_in / 20, 0, rand::random())).await;
            true
        }
        Ok(None) => false,
        Err(error) => {
            debug!(?error, "when the target may be claimed from again is not known; the next sweep looks");
            false
        }
    }
}
