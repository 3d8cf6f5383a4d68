//! The only place that lets time pass: how often things happen is part of the scenario; no test waits for it.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

pub(super) async fn pause(random: &mut StdRng, from_ms: u64, to_ms: u64) {
    tokio::time::sleep(Duration::from_millis(random.random_range(from_ms..=to_ms))).await;
}
