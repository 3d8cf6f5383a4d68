//! When to rely on bells.
//!
//! ```text
//!            nothing came          latch taken                    two looks with no older transaction
//!  Awake ──▶ Lingering ──▶ Taking ──▶ Settling ──▶ look again ──▶ running, the last from the beginning ──▶ Parked
//!    ▲                        └──▶ Deaf                                                                       │
//!    └──────────── a full batch, bells close together, no room, the listener reconnected ─────────────────────┘
//! ```
//!
//! Publishers ring only while somebody is parked, so a consumer with a steady stream of work polls once more a
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
mod tests {
    use super::*;

    const LATCH: Parked = Parked { barrier: 100, session: 1 };
    const NOTHING: Exhausted = Exhausted { nothing: true, why: Found::Drain, everywhere: false, oldest_xid: 100 };
    const SETTLING: State = State::Settling { parked: LATCH, looks: 0, next: None };
    const PARKED: State = State::Parked(LATCH);

    fn parking(state: State) -> Parking {
        Parking { state, ..Parking::new() }
    }

    /// The drawing: every state and every event.
    #[test]
    fn the_states_are_those_of_the_drawing() {
        let now = Instant::now();
        let later = State::Lingering(now + LINGER);
        let waiting = State::Settling { parked: LATCH, looks: 1, next: Some(now + 2 * SETTLE_FIRST) };
        let something = Event::Exhausted(Exhausted { nothing: false, ..NOTHING });
        let nothing = Event::Exhausted(NOTHING);
        let everywhere = Event::Exhausted(Exhausted { everywhere: true, ..NOTHING });
        let older_running = Event::Exhausted(Exhausted { everywhere: true, oldest_xid: 99, ..NOTHING });
        let for_a_bell = Event::Exhausted(Exhausted { why: Found::Bell, ..NOTHING });
        let (latched, refused) = (Event::Latched(Some(LATCH)), Event::Latched(None));
        let (rung, rung_elsewhere) = (Event::Rung { session: 1 }, Event::Rung { session: 2 });
        let busy = Event::Busy;
        let table = [
            (State::Awake, something, later, Action::Nothing),
            (State::Awake, nothing, State::Taking, Action::Park),
            (State::Awake, rung, State::Awake, Action::Nothing),
            (State::Awake, busy, State::Awake, Action::Nothing),
            (later, something, later, Action::Nothing),
            (later, nothing, State::Taking, Action::Park),
            (later, rung, later, Action::Nothing),
            (later, busy, later, Action::Nothing),
            (State::Taking, something, State::Taking, Action::Nothing),
            (State::Taking, nothing, State::Taking, Action::Nothing),
            (State::Taking, latched, SETTLING, Action::Look),
            (State::Taking, refused, State::Deaf, Action::Nothing),
            (State::Taking, rung, State::Taking, Action::Nothing),
            (State::Taking, busy, State::Taking, Action::Nothing),
            (SETTLING, older_running, waiting, Action::Nothing),
            (SETTLING, nothing, SETTLING, Action::LookEverywhere),
            (SETTLING, everywhere, PARKED, Action::Nothing),
            (SETTLING, rung, SETTLING, Action::Nothing),
            (SETTLING, rung_elsewhere, State::Awake, Action::ForgetPlaces),
            (SETTLING, busy, State::Awake, Action::Unpark(LATCH)),
            (PARKED, something, PARKED, Action::Nothing),
            (PARKED, nothing, PARKED, Action::Nothing),
            (PARKED, everywhere, PARKED, Action::Nothing),
            (PARKED, for_a_bell, PARKED, Action::LookEverywhereSoon),
            (PARKED, rung, PARKED, Action::Nothing),
            (PARKED, rung_elsewhere, State::Awake, Action::ForgetPlaces),
            (PARKED, busy, State::Awake, Action::Unpark(LATCH)),
            (State::Deaf, something, State::Taking, Action::Park),
            (State::Deaf, nothing, State::Taking, Action::Park),
            (State::Deaf, rung, State::Awake, Action::ForgetPlaces),
            (State::Deaf, busy, State::Deaf, Action::Nothing),
        ];
        for (state, event, then, action) in table {
            let mut parking = parking(state);
            assert_eq!((parking.on(event, now), parking.state), (action, then), "{state:?}, {event:?}");
        }
    }

    #[test]
    fn bells_close_together_end_parking_and_bells_further_apart_do_not() {
        for (apart, expected) in [
            (CLOSE_TOGETHER / 2, [Action::Nothing, Action::Nothing, Action::Nothing, Action::Unpark(LATCH)]),
            (CLOSE_TOGETHER, [Action::Nothing; 4]),
        ] {
            let mut parking = parking(PARKED);
            let began = Instant::now();
            let actions = [0, 1, 2, 3].map(|n| parking.on(Event::Rung { session: 1 }, began + apart * n));
            assert_eq!(actions, expected);
        }
    }

    #[test]
    fn behind_an_old_transaction_looks_become_fewer_and_never_end() {
        let mut parking = parking(SETTLING);
        let now = Instant::now();
        let behind = Event::Exhausted(Exhausted { oldest_xid: 99, ..NOTHING });
        let mut wait = || {
            assert_eq!(parking.on(behind, now), Action::Nothing);
            parking.next_look().unwrap() - now
        };
        let waits: Vec<Duration> = (0..=SETTLE_LOOKS).map(|_| wait()).collect();
        assert_eq!(waits[..3], [4, 8, 16].map(Duration::from_millis));
        assert_eq!(waits[10..SETTLE_LOOKS as usize], [SETTLE_CAP; SETTLE_LOOKS as usize - 10]);
        assert_eq!(waits[SETTLE_LOOKS as usize], SETTLE_SLOW);
    }
}
