//! Waiting for a gate that opens by itself: a target that may be claimed from only so often lets others through after a time.

use std::{sync::Arc, time::Duration};

use tracing::debug;

use super::context::Context;
use crate::backoff;

/// Between looks at a target that lets messages through, and did not when it was looked at, perhaps.
const AGAIN: Duration = Duration::from_millis(20);

/// So many such looks, and a sweep finds the rest.
const AGAIN_MAX: u32 = 6;

/// Waits until the target's rate lets messages through. `tries`: how often it did in vain before. Returns how often it has now;
/// `None`: nothing of that kind keeps messages back.
pub(super) async fn opens(context: Arc<Context>, tries: u32) -> Option<u32> {
    match context.store.opens_in(&context.target).await {
        // Whether it did when it was looked at, nobody knows.
        Ok(Some(Duration::ZERO)) if tries < AGAIN_MAX => {
            tokio::time::sleep(backoff::delay(AGAIN, AGAIN * 64, tries, rand::random())).await;
            Some(tries + 1)
        }
        Ok(Some(Duration::ZERO) | None) => None,
        Ok(Some(opens_in)) => {
            // Not all processes at once: one of them takes what there is, and a twentieth of the time is one entry.
            tokio::time::sleep(opens_in + backoff::delay(opens_in / 20, opens_in / 20, 0, rand::random())).await;
            Some(0)
        }
        Err(error) => {
            debug!(?error, "when the target may be claimed from again is not known; the next sweep looks");
            None
        }
    }
}
