//! When to rely on bells.
//!
//! ```text
//!            nothing came          latch taken                    two looks with no older transaction
//!  Awake ──▶ Lingering ──▶ (park) ──▶ Settling ──▶ look again ──▶ running, the last from the beginning ──▶ Parked
//!    ▲                                                                                                        │
//!    └──────────── a full batch, bells close together, no room, the listener reconnected ─────────────────────┘
//! ```
//!
//! Publishers ring only while somebody is parked, so a consumer with a steady stream of work polls once more a
//! millisecond after the last success instead of parking, and costs its publishers nothing. A consumer that gets lone
//! messages stays parked: each bell is answered by one claim, no latch is touched.

use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;

use super::{
    claiming::Dry,
    marks::From,
    run::{Loop, Task},
};
use crate::{message::Found, process::Parked};

/// One more look this long after the last success, before parking.
const LINGER: Duration = Duration::from_micros(500);
/// Bells closer together than this, several times in a row, are work that keeps coming. Further apart, a bell for each message
/// is cheap for publishers, and finds it sooner than a look now and then.
const CLOSE_TOGETHER: Duration = Duration::from_millis(1);
const CLOSE_BELLS: u32 = 3;
/// Looks while a transaction older than the latch is running: at first often, then a tenth of a second, then a second.
const SETTLE_FIRST: Duration = Duration::from_millis(2);
const SETTLE_CAP: Duration = Duration::from_millis(100);
const SETTLE_SLOW: Duration = Duration::from_secs(1);
const SETTLE_LOOKS: u32 = 30;

/// Whether bells are rung for this consumer.
#[derive(Debug)]
pub(super) enum Parking {
    /// They are not; there is, or was just now, work.
    Awake,
    /// They are not; one more look at that time.
    Lingering(Instant),
    /// They are, but a publish that looked before the latch was taken may still commit silently.
    Settling { parked: Parked, looks: u32, next: Option<Instant> },
    /// They are.
    Parked(Parked),
    /// They may not be: the listener is down. Sweeps, and its bell when it is up again.
    Deaf,
}

impl Loop {
    /// When to look again without having been rung.
    pub(super) fn next_look(&self) -> Option<Instant> {
        match self.parking {
            Parking::Lingering(at) => Some(at),
            Parking::Settling { next, .. } => next,
            _ => None,
        }
    }

    /// The barrier that the next look must beat.
    pub(super) fn settles_at(&self) -> Option<i64> {
        match self.parking {
            Parking::Settling { parked, .. } => Some(parked.barrier),
            _ => None,
        }
    }

    /// After a look that took all there was. Returns the parking to begin, if any.
    pub(super) fn ran_dry(&mut self, dry: &Dry) -> Option<Task<Option<Parked>>> {
        match &mut self.parking {
            Parking::Awake | Parking::Lingering(_) if !dry.nothing => {
                self.parking = Parking::Lingering(Instant::now() + LINGER);
                None
            }
            Parking::Awake | Parking::Lingering(_) | Parking::Deaf => {
                self.parking = Parking::Awake;
                let (process, target) = (self.context.process.clone(), self.context.target.clone());
                Some(async move { process.park(&target).await }.boxed())
            }
            Parking::Settling { parked, .. } if dry.oldest_xid >= parked.barrier => {
                if dry.from == From::Beginning {
                    self.parking = Parking::Parked(*parked);
                } else {
                    // Whoever comes from now on rings. The last look is one at everything that came until now.
                    self.look_everywhere(Found::Drain);
                }
                None
            }
            Parking::Settling { looks, next, .. } => {
                *looks += 1;
                let wait = match *looks {
                    looks if looks > SETTLE_LOOKS => SETTLE_SLOW,
                    looks => SETTLE_FIRST.saturating_mul(1 << looks.min(10)).min(SETTLE_CAP),
                };
                *next = Some(Instant::now() + wait);
                None
            }
            Parking::Parked(_) => {
                if dry.nothing && dry.found == Found::Bell && dry.from != From::Beginning {
                    // Somebody else took it; or it is older than all that was looked at, by a time set by hand.
                    self.look_everywhere_at = Some(Instant::now() + self.marks.full_in());
                }
                None
            }
        }
    }

    /// Looks from the beginning of the queue next.
    pub(super) fn look_everywhere(&mut self, found: Found) {
        self.look = self.look.or(Some(found));
        self.everywhere = true;
        self.hold.everywhere = true;
        self.look_everywhere_at = None;
    }

    /// The latch was taken, or could not be: look, now that bells are rung.
    pub(super) fn parked(&mut self, parked: Option<Parked>) {
        match parked {
            Some(parked) => {
                self.parking = Parking::Settling { parked, looks: 0, next: None };
                self.look = self.look.or(Some(Found::Drain));
            }
            None => self.parking = Parking::Deaf,
        }
    }

    /// A bell. Close together, they say that parking does not pay.
    pub(super) fn rung(&mut self) {
        let now = Instant::now();
        let close = self.last_bell.replace(now).is_some_and(|last| now - last < CLOSE_TOGETHER);
        self.close_bells = if close { self.close_bells + 1 } else { 0 };
        let void = match self.parking {
            Parking::Settling { parked, .. } | Parking::Parked(parked) => {
                parked.session != self.context.process.listener_session()
            }
            // The listener may be back.
            Parking::Deaf => true,
            _ => false,
        };
        if void {
            self.parking = Parking::Awake;
            self.forget_places();
        } else if self.close_bells >= CLOSE_BELLS {
            self.unpark();
        }
        self.look = Some(Found::Bell);
    }

    /// Tells publishers that they need not ring.
    pub(super) fn unpark(&mut self) {
        if let Parking::Settling { parked, .. } | Parking::Parked(parked) = self.parking {
            self.context.process.unpark(&self.context.target, parked);
            self.parking = Parking::Awake;
        }
    }
}
