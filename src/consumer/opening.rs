//! Waiting for a gate that opens by itself: a target that may be claimed from only so often lets others through after a time.

use std::time::Duration;

use crate::backoff;

/// The least that is waited: what has opened already is asked by all processes at once.
const LEAST: Duration = Duration::from_millis(2);

/// Waits until the target's rate lets messages through that kept a claim from taking more.
pub(super) async fn opens(opens_in: Duration) {
    let opens_in = opens_in.max(LEAST);
    // Not all processes at once: one of them takes what there is, and a twentieth of the time is one entry.
    tokio::time::sleep(opens_in + backoff::delay(opens_in / 20, opens_in / 20, 0, rand::random())).await;
}
