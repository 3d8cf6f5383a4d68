//! When to rely on bells.
//!
//! ```text
//!            nothing came          latch taken                    two looks with no older transaction
//!  Awake ──▶ Lingering ──▶ Taking ──▶ Settling ──▶ look again ──▶ running, the last from the beginning ──▶ Parked
//!    ▲                        └──▶ Deaf                                                                       │
//!    └──────────── a full batch, bells close together, no room, the listener reconnected ─────────────────────┘
//! ```
//!
//! Publishers ring only while somebody is parked, so a consumer with a steady stream of work polls once more half a
//! millisecond after the last success instead of parking, and costs its publishers nothing. A consumer that gets lone
//! messages stays parked: each bell is answered by one claim, no latch is touched.

use std::time::Duration;

use tokio::time::Instant;

use super::looking::Exhausted;
use crate::{message::Found, process::Parked};

/// One more look this long after the last success, before parking.
const LINGER: Duration = Duration::from_micros(500);
/// Bells closer together than this, several times in a row, are work that keeps coming. Further apart, a bell for each
/// message is cheap for publishers, and finds it sooner than a look now and then.
const CLOSE_TOGETHER: Duration = Duration::from_millis(1);
const CLOSE_BELLS: u32 = 3;
/// Looks while a transaction older than the latch is running: at first often, then a tenth of a second, then a second.
const SETTLE_FIRST: Duration = Duration::from_millis(2);
const SETTLE_CAP: Duration = Duration::from_millis(100);
const SETTLE_SLOW: Duration = Duration::from_secs(1);
const SETTLE_LOOKS: u32 = 30;

/// Whether bells are rung for this consumer, and what has to be done about it.
#[derive(Debug)]
pub(super) struct Parking {
    state: State,
    last_bell: Option<Instant>,
    /// Bells in a row that came close together.
    close_bells: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// They are not; there is, or was just now, work.
    Awake,
    /// They are not; one more look at that time.
    Lingering(Instant),
    /// They will be: the latch is being taken.
    Taking,
    /// They are, but a publish that looked before the latch was taken may still commit silently.
    Settling { parked: Parked, looks: u32, next: Option<Instant> },
    /// They are.
    Parked(Parked),
    /// They may not be: the listener is down. Sweeps, and its bell when it is up again.
    Deaf,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A look took all there was, and there is no reason for another one.
    Exhausted(Exhausted),
    /// The latch was taken, or could not be.
    Latched(Option<Parked>),
    /// A bell, while the listener's session is that one.
    Rung { session: u64 },
    /// A full batch, or no room for one: who rings now rings for nothing.
    Busy,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Action {
    Nothing,
    /// Take the latch, and say what came of it.
    Park,
    /// Give the latch back.
    Unpark(Parked),
    /// Look, now that bells are rung.
    Look,
    LookEverywhere,
    /// When such a look is not too dear.
    LookEverywhereSoon,
    /// The listener was away, perhaps with the server.
    ForgetPlaces,
}

impl Parking {
    pub(super) fn new() -> Self {
        Self { state: State::Awake, last_bell: None, close_bells: 0 }
    }

    /// When to look again without having been rung.
    pub(super) fn next_look(&self) -> Option<Instant> {
        match self.state {
            State::Lingering(at) => Some(at),
            State::Settling { next, .. } => next,
            _ => None,
        }
    }

    /// Whether the next look must not miss late commits.
    pub(super) fn is_settling(&self) -> bool {
        matches!(self.state, State::Settling { .. })
    }

    /// Whether bells are all it relies on.
    pub(super) fn is_parked(&self) -> bool {
        matches!(self.state, State::Parked(_))
    }

    pub(super) fn on(&mut self, event: Event, now: Instant) -> Action {
        match (event, self.state) {
            (Event::Exhausted(look), _) => self.exhausted(look, now),
            (Event::Latched(Some(parked)), _) => {
                self.state = State::Settling { parked, looks: 0, next: None };
                Action::Look
            }
            (Event::Latched(None), _) => {
                self.state = State::Deaf;
                Action::Nothing
            }
            (Event::Rung { session }, state) => {
                let close = self.last_bell.replace(now).is_some_and(|last| now - last < CLOSE_TOGETHER);
                self.close_bells = if close { self.close_bells + 1 } else { 0 };
                match state {
                    State::Settling { parked, .. } | State::Parked(parked) if parked.session == session => {
                        // Close together, they say that parking does not pay.
                        if self.close_bells >= CLOSE_BELLS { self.on(Event::Busy, now) } else { Action::Nothing }
                    }
                    // The latch went with its session; or the listener may be back.
                    State::Settling { .. } | State::Parked(_) | State::Deaf => {
                        self.state = State::Awake;
                        Action::ForgetPlaces
                    }
                    State::Awake | State::Lingering(_) | State::Taking => Action::Nothing,
                }
            }
            (Event::Busy, State::Settling { parked, .. } | State::Parked(parked)) => {
                self.state = State::Awake;
                Action::Unpark(parked)
            }
            (Event::Busy, State::Awake | State::Lingering(_) | State::Taking | State::Deaf) => Action::Nothing,
        }
    }

    fn exhausted(&mut self, look: Exhausted, now: Instant) -> Action {
        match &mut self.state {
            State::Awake | State::Lingering(_) if !look.nothing => {
                self.state = State::Lingering(now + LINGER);
                Action::Nothing
            }
            State::Awake | State::Lingering(_) | State::Deaf => {
                self.state = State::Taking;
                Action::Park
            }
            State::Taking => Action::Nothing,
            State::Settling { parked, .. } if look.oldest_xid >= parked.barrier => {
                if look.everywhere {
                    self.state = State::Parked(*parked);
                    Action::Nothing
                } else {
                    // Whoever comes from now on rings. The last look is one at everything that came until now.
                    Action::LookEverywhere
                }
            }
            State::Settling { looks, next, .. } => {
                *looks += 1;
                let wait = match *looks {
                    looks if looks > SETTLE_LOOKS => SETTLE_SLOW,
                    looks => SETTLE_FIRST.saturating_mul(1 << looks.min(10)).min(SETTLE_CAP),
                };
                *next = Some(now + wait);
                Action::Nothing
            }
            // Somebody else took it; or it is older than all that was looked at, by a time set by hand.
            State::Parked(_) if look.nothing && look.why == Found::Bell && !look.everywhere => {
                Action::LookEverywhereSoon
            }
            State::Parked(_) => Action::Nothing,
        }
    }
}

#[cfg(test)]
#[path = "tests/parking.rs"]
mod tests;
