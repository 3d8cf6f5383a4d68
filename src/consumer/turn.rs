//! Looks for which it was not their turn: when to come back, and whom not to wait for.
//!
//! Claims of one target take turns. Only a few wait for theirs in the database, where it costs all others something; who is
//! turned away comes back after a pause that grows. While the turn goes from hand to hand that may go on: to claim beside
//! others is the dearest of all. If the same transaction has it each time it is asked about, it is not waited for.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff;

const PAUSE_BASE: Duration = Duration::from_millis(20);
const PAUSE_CAP: Duration = Duration::from_millis(320);

/// Who has the turn is asked for the first time after so long, and then so often: it is not for nothing.
const ASK_FIRST: Duration = Duration::from_millis(300);
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// After so long it is not waited for, whatever is seen: who may consume, and keeps the lock in a session that does other
/// things, has it in another transaction each time. In a line of 64 nobody waits for a tenth of it.
const GIVE_UP: Duration = Duration::from_secs(30);
const WHOEVER: &str = "*";

/// A consumer that was turned away, and has not had its turn yet.
#[derive(Debug)]
pub(super) struct TurnedAway {
    since: Instant,
    times: u32,
    ask_at: Instant,
    /// Who had the turn when it was asked last; empty: that is not known yet.
    seen: String,
    back_at: Option<Instant>,
}

impl TurnedAway {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, times: 0, ask_at: now + ASK_FIRST, seen: String::new(), back_at: None }
    }

    /// Once more. `holder`: who has the turn, where it was asked and is known; else empty. `at_once`: it comes back without a pause.
    pub(super) fn again(&mut self, holder: String, at_once: bool, now: Instant, random: f64) {
        if !holder.is_empty() {
            (self.seen, self.ask_at) = (holder, now + ASK_AGAIN);
        }
        let pause = backoff::delay(PAUSE_BASE, PAUSE_CAP, self.times, random);
        self.times = self.times.saturating_add(1);
        self.back_at = (!at_once).then(|| now + pause);
    }

    /// When it comes back; `None`: it may.
    pub(super) fn back_at(&self) -> Option<Instant> {
        self.back_at
    }

    /// It need not wait any longer.
    pub(super) fn come_back(&mut self) {
        self.back_at = None;
    }

    /// Whom it saw, where it is to ask who has the turn.
    pub(super) fn asks(&self, now: Instant) -> Option<String> {
        if now >= self.since + GIVE_UP {
            return Some(WHOEVER.to_owned());
        }
        (now >= self.ask_at).then(|| self.seen.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_after_a_bell_there_is_none() {
        let now = Instant::now();
        let mut turned_away = TurnedAway::new(now);
        let mut pause = |random: f64| {
            turned_away.again(String::new(), false, now, random);
            turned_away.back_at().unwrap() - now
        };
        assert_eq!((pause(0.0), pause(1.0)), (PAUSE_BASE / 2, PAUSE_BASE * 2));
        let longest = (0..100).map(|_| pause(1.0)).max();
        assert_eq!(longest, Some(PAUSE_CAP));
        turned_away.come_back();
        assert_eq!(turned_away.back_at(), None);
        turned_away.again(String::new(), true, now, 1.0);
        assert_eq!(turned_away.back_at(), None);
    }

    #[test]
    fn it_asks_now_and_then_who_has_the_turn_and_says_whom_it_saw() {
        let now = Instant::now();
        let mut turned_away = TurnedAway::new(now);
        assert_eq!(turned_away.asks(now), None);
        let first = now + ASK_FIRST;
        assert_eq!(turned_away.asks(first).as_deref(), Some(""));
        // Somebody else was asking.
        turned_away.again(String::new(), false, first, 0.5);
        assert_eq!(turned_away.asks(first).as_deref(), Some(""));
        turned_away.again("3/14".into(), false, first, 0.5);
        assert_eq!(turned_away.asks(first), None);
        turned_away.again(String::new(), false, first, 0.5);
        assert_eq!(turned_away.asks(first + ASK_AGAIN).as_deref(), Some("3/14"));
        assert_eq!(turned_away.asks(now + GIVE_UP).as_deref(), Some(WHOEVER));
    }
}
