//! The only place of these scenarios that lets time pass: an outage is longer than a lease or it is not.

use std::time::Duration;

use doorbell::BrokerConfig;

/// Short, so that outlasting it is short.
pub(super) const LEASE: Duration = Duration::from_millis(3600);

/// Of consumers that are to look again soon, whatever they were told.
pub(super) const SWEEP: Duration = Duration::from_millis(200);

/// As in production, but for times: a lease of twelve beats.
pub(super) fn config() -> BrokerConfig {
    BrokerConfig { lease: LEASE, beat: Duration::from_millis(300), ..Default::default() }
}

/// Until any lease that was renewed before this was called is over, with room to spare.
pub(super) async fn outlast_the_lease() {
    tokio::time::sleep(LEASE + LEASE / 2).await;
}
