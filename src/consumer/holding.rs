//! Whether the next messages are held or leased, and how many one transaction may hold.
//!
//! Messages are held while their handlers are short. What could not be held is leased next, which is where failures are
//! counted.

use std::time::Duration;

use super::{
    config::ConsumerConfig,
    held_batch::HeldBatch,
    in_order::SAVEPOINTS_MAX,
    looking::{Look, NextLook},
    running::GRACE,
};
use crate::message::Found;

/// Batches in flight at a time, each on a connection of its own: one is handled while the next one is fetched.
const BATCHES_MAX: usize = 3;

/// A process that has just started uses leases: long enough to have rescued from the one before it, which may have died
/// of what this one would hold next. Without that, a message could kill one fresh process after the other, and none
/// would live to say so.
const LEASES_FIRST: Duration = Duration::from_secs(3);

/// Plain handlers slower than this on average work with leases: a transaction open for longer would save less than it
/// costs, and what one batch handles on one thread is not shared with others.
const SHORT: Duration = Duration::from_millis(1);

/// Transactional handlers have a transaction open anyway, and wait for a server that is the slower the more it has to do:
/// they are held while so many of them fit into the longest transaction.
const WORTH: u32 = 10;

/// Most messages in one transaction.
const BATCH_MAX: usize = 500;

/// Messages that the first transaction of a consumer may hold, before anything is known about its handlers.
const FIRST: usize = 16;

/// Looks that lease after one that met messages with keys: there will be more.
const KEYED_LOOKS: u32 = 32;

/// Before any handler has ended.
const UNKNOWN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Holding {
    /// The longest that a transaction may last; `None`: nothing is held.
    cap: Option<Duration>,
    /// Handlers that take as long, on average, are short.
    short: Duration,
    /// How long they take, the last ones counting most.
    average: Duration,
    concurrency: usize,
    /// How many messages the next transaction may hold.
    limit: usize,
    next: NextLook,
    /// Looks that are to lease because messages with keys, which are never held, were met.
    keyed: u32,
}

/// What to look for once a batch has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    Look(Found),
    /// From the beginning: what the batch took is free again, and no bell says so.
    LookAgain(Found),
}

impl Holding {
    /// `plain`: there are no transactional handlers.
    pub(super) fn new(config: &ConsumerConfig, plain: bool) -> Self {
        let (cap, concurrency) = (config.hold, config.concurrency);
        let short = if plain { SHORT } else { cap.unwrap_or_default() / WORTH };
        Self { cap, short, average: UNKNOWN, concurrency, limit: FIRST, next: NextLook::Held, keyed: 0 }
    }

    /// So many handlers took so long, on average.
    pub(super) fn ran(&mut self, handlers: usize, each: Duration) {
        // As many as the average looks back to, or as there were.
        for _ in 0..handlers.min(8) {
            self.average = (self.average * 7 + each) / 8;
        }
    }

    /// Whether a handler of a batch that has been held for so long blocks its thread: nobody waits for its place.
    pub(super) fn is_blocked(&self, held_for: Option<Duration>) -> bool {
        held_for.is_some_and(|held_for| held_for >= self.cap.unwrap_or_default() + GRACE)
    }

    /// What the next look is for, in a process of this age, whose oldest batch has been held for so long.
    pub(super) fn next_look(&self, age: Duration, held_for: Option<Duration>) -> NextLook {
        let is_short = self.average <= self.short;
        let may = self.cap.is_some() && self.keyed == 0 && age >= LEASES_FIRST;
        let held = may && is_short && !self.is_blocked(held_for);
        match self.next {
            NextLook::Held if !held => NextLook::Leased,
            next => next,
        }
    }

    /// How many messages one more batch may hold, beside so many others, and for how long.
    pub(super) fn batch(&self, batches: usize) -> Option<(usize, Duration)> {
        // Those that wait for the server wait side by side.
        let most = if self.average <= SHORT { BATCHES_MAX.min(self.concurrency) } else { self.concurrency };
        self.cap.filter(|_| batches < most).map(|cap| (self.limit, cap))
    }

    /// A look for leases took so many, and met messages with keys or not.
    pub(super) fn leased(&mut self, look: &Look, took: usize, keyed: bool) {
        self.keyed = if keyed { KEYED_LOOKS } else { self.keyed.saturating_sub(1) };
        self.next = match (self.next, look.next()) {
            (NextLook::Refused(left), NextLook::Refused(_)) if left > took && took > 0 => {
                NextLook::Refused(left - took)
            }
            (NextLook::Refused(_), NextLook::Refused(_)) => NextLook::Held,
            // A batch has ended meanwhile, and wants another look.
            (next, _) => next,
        };
    }

    pub(super) fn ended(&mut self, batch: &HeldBatch) -> Then {
        let HeldBatch { look, took, refused, duration, .. } = batch;
        let begun = &batch.begun();
        for (handlers, together) in [batch.plain, batch.in_order] {
            if handlers > 0 {
                self.ran(handlers, together / handlers as u32);
            }
        }
        if *refused {
            self.limit = (self.limit / 2).max(1);
            self.next = NextLook::Refused((*took).max(1));
            // One from the beginning may not even have been made.
            let again = *took > 0 || look.is_everywhere();
            return if again { Then::LookAgain(look.why()) } else { Then::Look(look.why()) };
        }
        if *begun > 0 {
            let each = *duration / *begun as u32;
            let cap = self.cap.unwrap_or_default();
            // Half of the cap, so that a batch of average messages stays below it.
            let fits = (cap.as_nanos() / 2 / each.as_nanos().max(1)) as usize;
            // What more messages have savepoints for, if so many have needed one.
            let most = if batch.savepoints * 2 > *begun { SAVEPOINTS_MAX } else { BATCH_MAX };
            self.limit = (self.limit * 2).min(fits).clamp(1, most);
        }
        // The cap came first.
        if begun < took { Then::LookAgain(Found::Drain) } else { Then::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::reached::Start;

    const OLD: Duration = LEASES_FIRST;
    const CAP: Duration = Duration::from_secs(1);

    /// Whose handlers have taken so long.
    fn holding(plain: bool, average: Duration) -> Holding {
        let mut holding = Holding::new(&ConsumerConfig { hold: Some(CAP), ..ConsumerConfig::default() }, plain);
        holding.average = average;
        holding
    }

    fn short() -> Holding {
        holding(true, Duration::ZERO)
    }

    fn look(next: NextLook) -> Look {
        Look::for_a_bell(next, Start::Places)
    }

    fn batch(limit: usize, took: usize, completed: usize) -> HeldBatch {
        let look = look(NextLook::Held);
        let duration = Duration::from_millis(1);
        HeldBatch { took, completed, refused: false, duration, ..HeldBatch::refused(look, limit) }
    }

    #[test]
    fn where_messages_with_keys_were_met_a_number_of_looks_lease() {
        let mut holding = short();
        holding.leased(&look(NextLook::Leased), 1, true);
        for _ in 0..KEYED_LOOKS {
            assert_eq!(holding.next_look(OLD, None), NextLook::Leased);
            holding.leased(&look(NextLook::Leased), 1, false);
        }
        assert_eq!(holding.next_look(OLD, None), NextLook::Held);
    }

    #[test]
    fn a_process_that_has_just_started_leases_and_so_does_one_that_never_holds() {
        assert_eq!(short().next_look(LEASES_FIRST / 2, None), NextLook::Leased);
        assert_eq!(short().next_look(LEASES_FIRST, None), NextLook::Held);
        let mut never = Holding::new(&ConsumerConfig { hold: None, ..ConsumerConfig::default() }, true);
        never.average = Duration::ZERO;
        assert_eq!((never.next_look(OLD, None), never.batch(0)), (NextLook::Leased, None));
    }

    #[test]
    fn handlers_are_held_while_they_are_short_and_nothing_is_known_of_the_first() {
        for (plain, limit) in [(true, SHORT), (false, CAP / WORTH)] {
            assert_eq!(holding(plain, limit).next_look(OLD, None), NextLook::Held);
            assert_eq!(holding(plain, limit * 2).next_look(OLD, None), NextLook::Leased);
        }
        let mut fresh = Holding::new(&ConsumerConfig::default(), true);
        let mut leased = 0;
        while fresh.next_look(OLD, None) == NextLook::Leased {
            fresh.ran(1, Duration::from_micros(10));
            leased += 1;
        }
        assert!((8..64).contains(&leased), "{leased}");
        let slow = HeldBatch { in_order: (1, CAP), ..batch(16, 1, 1) };
        fresh.ended(&slow);
        assert_eq!(fresh.next_look(OLD, None), NextLook::Leased);
    }

    #[test]
    fn a_batch_that_was_rolled_back_is_leased_until_so_many_were_taken() {
        let mut holding = short();
        let refused = HeldBatch { refused: true, ..batch(16, 5, 0) };
        assert_eq!(holding.ended(&refused), Then::LookAgain(Found::Bell));
        for (took, next) in [(2, NextLook::Refused(3)), (1, NextLook::Refused(2)), (2, NextLook::Held)] {
            holding.leased(&look(NextLook::Refused(5)), took, false);
            assert_eq!(holding.next_look(OLD, None), next);
        }
    }

    #[test]
    fn a_target_that_does_not_allow_to_hold_is_leased_from_and_asked_again() {
        let mut holding = short();
        let refused = HeldBatch { refused: true, ..batch(16, 0, 0) };
        assert_eq!(holding.ended(&refused), Then::Look(Found::Bell));
        let everywhere = HeldBatch { look: Look::for_a_bell(NextLook::Held, Start::Beginning), ..refused };
        assert_eq!(holding.ended(&everywhere), Then::LookAgain(Found::Bell), "such a look is still to be made");
        holding.leased(&look(NextLook::Refused(1)), 0, false);
        assert_eq!(holding.next_look(OLD, None), NextLook::Held);
    }

    #[test]
    fn a_rolled_back_batch_is_not_forgotten_for_a_look_that_was_under_way() {
        let mut holding = short();
        holding.ended(&HeldBatch { refused: true, ..batch(16, 5, 0) });
        holding.leased(&look(NextLook::Leased), 7, false);
        assert_eq!(holding.next_look(OLD, None), NextLook::Refused(5));
    }

    #[test]
    fn batches_grow_while_they_fit_into_half_of_the_cap_and_shrink_when_they_are_rolled_back() {
        let mut holding = short();
        let limits: Vec<usize> = (0..7)
            .map(|_| {
                let (limit, _) = holding.batch(0).unwrap();
                holding.ended(&batch(limit, limit, limit));
                limit
            })
            .collect();
        assert_eq!(limits, [16, 32, 64, 128, 256, 500, 500]);
        holding.ended(&HeldBatch { duration: Duration::from_millis(500), ..batch(100, 10, 10) });
        assert_eq!(holding.batch(0), Some((10, CAP)));
        holding.ended(&HeldBatch { refused: true, ..batch(10, 10, 0) });
        assert_eq!(holding.batch(BATCHES_MAX - 1), Some((5, CAP)));
        assert_eq!(holding.batch(BATCHES_MAX), None);
    }

    #[test]
    fn where_handlers_need_savepoints_a_batch_has_as_many_messages_as_there_may_be() {
        let mut holding = holding(false, Duration::ZERO);
        for (savepoints, limit) in [(1, 32), (1, 64), (60, SAVEPOINTS_MAX), (60, SAVEPOINTS_MAX), (1, 120)] {
            holding.ended(&HeldBatch { savepoints, ..batch(60, 60, 60) });
            assert_eq!(holding.batch(0), Some((limit, CAP)));
        }
    }

    #[test]
    fn handlers_that_wait_for_the_server_do_so_in_more_batches() {
        let concurrency = ConsumerConfig::default().concurrency;
        assert!(holding(false, SHORT).batch(BATCHES_MAX).is_none());
        assert!(holding(false, SHORT * 2).batch(BATCHES_MAX).is_some());
        assert!(holding(false, SHORT * 2).batch(concurrency).is_none());
    }

    #[test]
    fn nothing_is_held_beside_a_handler_that_blocks_its_thread() {
        let holding = short();
        assert_eq!(holding.next_look(OLD, Some(CAP)), NextLook::Held);
        assert_eq!(holding.next_look(OLD, Some(CAP + GRACE)), NextLook::Leased);
        assert!(!holding.is_blocked(None));
    }

    #[test]
    fn what_the_cap_left_unbegun_is_looked_for_from_the_beginning() {
        assert_eq!(short().ended(&batch(16, 16, 16)), Then::Nothing);
        assert_eq!(short().ended(&batch(16, 3, 3)), Then::Nothing);
        assert_eq!(short().ended(&batch(16, 16, 9)), Then::LookAgain(Found::Drain));
    }
}
