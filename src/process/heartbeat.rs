//! The heartbeat: renews the lease, rescues from those who stopped beating, asks a server that was away what it still knows,
//! lets go of what was taken away,
//! and starts over when the database says that the lease was lost. Silence says nothing: an outage of any length leaves the
//! owner and its handlers as they are.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    found::FoundAccounts,
    in_hand::{Beats, InHand},
    registration::Registration,
};
use crate::{
    backoff,
    error::{Error, ErrorKind, Result},
    outage::Outage,
    store::{Beat, Met, Store},
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
    /// Whom the last beat met, or the registration.
    met: Met,
    /// What was in hand then.
    beats: Beats,
}

impl Heartbeat {
    /// The owner is registered already.
    pub(super) fn new(
        config: LeaseConfig,
        registration: Arc<Registration>,
        met: Met,
        in_hand: Arc<InHand>,
        found: Arc<FoundAccounts>,
        store: Store,
    ) -> Self {
        Self { config, registration, in_hand, found, store, registered: true, met, beats: Beats::default() }
    }

    /// Beats for ever.
    pub(super) async fn run(mut self) {
        let LeaseConfig { beat, .. } = self.config;
        let mut outage =
            Outage::new("the heartbeat did not get through; trying again until it does", "the database is back")
                .pauses(RETRY_BASE.min(beat), RETRY_CAP.min(beat));
        let mut next_full_rescue = Instant::now();
        let mut pause = backoff::jittered(beat, rand::random());
        loop {
            sleep(pause).await;
            let asked = Instant::now();
            let owner = self.registration.owner();
            match self.renew(&owner).await {
                Ok(Beat { renewed, met }) => {
                    self.registration.beaten();
                    outage.over();
                    pause = backoff::jittered(beat, rand::random());
                    if !renewed {
                        self.start_over().await;
                        continue;
                    }
                    self.meet(&owner, met).await;
                    self.let_go(&owner).await;
                }
                Err(error) => {
                    pause = outage.failed(&error);
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

    /// One beat.
    async fn renew(&mut self, owner: &str) -> Result<Beat> {
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
        let beat = timeout(lease / 2, beat).await.unwrap_or_else(silence)?;
        self.registered = true;
        Ok(beat)
    }

    /// After a reconnect the server may have lost its last commits, or be another one that never had them.
    async fn meet(&mut self, owner: &str, met: Met) {
        if met == self.met {
            return;
        }
        // It may have lost settles as well: what they settled is this process's again, and nothing here knows it.
        self.in_hand.doubt();
        match self.in_hand.drop_gone(&self.store, owner).await {
            Ok(gone) => {
                if self.met.timeline != met.timeline {
                    let (before, now) = (self.met.timeline.as_deref(), met.timeline.as_deref());
                    warn!(before, now, gone, "the server is on another timeline: it was failed over or restored");
                } else if gone > 0 {
                    warn!(gone, "the server has lost messages that are in hand");
                }
                self.met = met;
            }
            Err(error) => debug!(?error, "what is in hand could not be asked for; the next beat does"),
        }
    }

    /// What operators or hands took away is not to be handled any longer.
    async fn let_go(&mut self, owner: &str) {
        if let Err(error) = self.in_hand.drop_taken(&self.store, owner, &mut self.beats).await {
            debug!(?error, "what was taken away could not be asked for; the next beat does");
        }
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
