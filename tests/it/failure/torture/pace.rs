//! The only place that lets time pass: how often things happen is part of the scenario; no test waits for it.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

/// How long a slow handler takes: an outage that is longer than the lease fits into it.
const SLOW: Duration = Duration::from_secs(6);
/// Between two looks at what nothing announces.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn be_slow() {
    tokio::time::sleep(SLOW).await;
}

pub(super) async fn look_again() {
    tokio::time::sleep(LOOK).await;
}

pub(super) async fn pause(random: &mut StdRng, from_ms: u64, to_ms: u64) {
    tokio::time::sleep(Duration::from_millis(random.random_range(from_ms..=to_ms))).await;
}
