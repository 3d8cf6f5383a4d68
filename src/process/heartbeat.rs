//! The heartbeat: renews the lease, rescues from those who stopped beating, and starts over when its own lease was lost.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{found::FoundAccounts, in_hand::InHand, registration::Registration};
use crate::{
    backoff,
    error::{Error, ErrorKind, Result},
    outage::Outage,
    store::Store,
    telemetry::Event,
};

/// Full rescues (leases of single claims, strays) happen at least this often even if nothing rings.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
const RETRY_BASE: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// How the process keeps its lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseConfig {
    pub(crate) lease: Duration,
    pub(crate) beat: Duration,
}

pub(super) struct Heartbeat {
    config: LeaseConfig,
    registration: Arc<Registration>,
    in_hand: Arc<InHand>,
    found: Arc<FoundAccounts>,
    /// A connection of its own.
    store: Store,
    /// Whether the database knows the present owner.
    registered: bool,
}

impl Heartbeat {
    /// The owner is registered already.
    pub(super) fn new(
        config: LeaseConfig,
        registration: Arc<Registration>,
        in_hand: Arc<InHand>,
        found: Arc<FoundAccounts>,
        store: Store,
    ) -> Self {
        Self { config, registration, in_hand, found, store, registered: true }
    }

    /// Beats for ever. The lease is lost when the database says so, or could not be reached for as long as it lasts.
    pub(super) async fn run(mut self) {
        let LeaseConfig { lease, beat } = self.config;
        let mut outage =
            Outage::new("the heartbeat did not get through; trying again until it does", "the database is back")
                .pauses(RETRY_BASE.min(beat), RETRY_CAP.min(beat));
        let mut renewed = Instant::now();
        let mut next_full_rescue = Instant::now();
        let mut pause = backoff::jittered(beat, rand::random());
        loop {
            sleep(pause).await;
            let asked = Instant::now();
            let owner = self.registration.owner();
            match self.renew(&owner).await {
                Ok(is_ours) => {
                    outage.over();
                    pause = backoff::jittered(beat, rand::random());
                    renewed = asked;
                    if !is_ours {
                        self.start_over().await;
                        renewed = Instant::now();
                        continue;
                    }
                }
                Err(error) => {
                    pause = outage.failed(&error);
                    if self.registered && renewed.elapsed() >= lease {
                        self.start_over().await;
                    }
                    continue;
                }
            }
            let full = asked >= next_full_rescue;
            self.rescue(full).await;
            if full {
                self.housekeep(&owner).await;
                next_full_rescue = asked + backoff::jittered(HOUSEKEEPING, rand::random());
            }
        }
    }

    /// One beat; false: the lease was lost.
    async fn renew(&mut self, owner: &str) -> Result<bool> {
        let lease = self.config.lease;
        // Connecting has a limit of its own for each host, and silent hosts must not use up what the beat has.
        drop(self.store.pool().get().await?);
        let beat = async {
            if !self.registered {
                self.registration.announce().await?;
                self.registration.announced();
            }
            self.store.beat(owner, lease).await
        };
        let silence = |_| Err(Error::new(ErrorKind::Timeout, "heartbeat: no answer"));
        let is_ours = timeout(lease / 2, beat).await.unwrap_or_else(silence)?;
        self.registered = true;
        Ok(is_ours)
    }

    /// Everything held belongs to somebody else now. Consumers see the new owner and stop what they were running for the
    /// old one.
    async fn start_over(&mut self) {
        let lost = self.registration.owner();
        let fresh = self.registration.rename();
        warn!(%lost, %fresh, "the lease was lost: handlers are stopped, their messages belong to others");
        self.in_hand.clear();
        self.registered = self.registration.announce().await.is_ok();
        if self.registered {
            self.registration.announced();
        }
    }

    async fn rescue(&self, full: bool) {
        match self.store.rescue(full).await {
            Ok(0) => {}
            Ok(count) => {
                info!(count, "rescued messages of dead consumers");
                self.store.telemetry().tell(Event::Rescued { messages: count });
            }
            Err(error) => debug!(?error, "rescue failed; the next beat tries again"),
        }
    }

    async fn housekeep(&self, owner: &str) {
        if let Err(error) = self.in_hand.return_strays_if_idle(&self.store, owner).await {
            debug!(?error, "looking for strays failed; the next full rescue tries again");
        }
        self.found.flush(&self.store).await;
    }
}
