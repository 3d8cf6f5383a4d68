//! Whether the next messages are held or leased, and how many one transaction may hold.
//!
//! Messages of plain handlers are held while these are short; then there are no others. Where those of transactional
//! handlers are held, those of other record types are leased: looked for whenever nothing is left to hold. What could
//! not be held is leased next, which is where failures are counted.

use std::time::Duration;

use super::{
    config::ConsumerConfig,
    held_batch::HeldBatch,
    looking::{Exhausted, Look, NextLook},
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

/// Most messages of plain handlers in one transaction.
const PLAIN_MAX: usize = 500;

/// Messages that the first transaction of a consumer may hold, before anything is known about its handlers.
const FIRST: usize = 16;

#[derive(Debug)]
pub(super) struct Holding {
    /// The longest that a transaction may last; `None`: nothing is held.
    cap: Option<Duration>,
    /// Every message that there is is held, for a plain handler.
    plain: bool,
    batch_max: usize,
    batches_max: usize,
    /// How many messages the next transaction may hold.
    limit: usize,
    next: NextLook,
    /// What the last look that held says for parking.
    exhausted: Option<Exhausted>,
}

/// How busy the handlers are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busy {
    /// How long they take, on average.
    pub(super) average: Duration,
    /// How many of leased messages run.
    pub(super) running: usize,
    /// How long the oldest batch has been held.
    pub(super) held_for: Option<Duration>,
}

/// What to look for once a batch has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    Look(Found),
    /// Unless there is another reason.
    AlsoLook(Found),
    /// From the beginning: what the batch took is free again, and no bell says so.
    LookAgain(Found),
}

impl Holding {
    /// `plain`: there are no transactional handlers.
    pub(super) fn new(config: &ConsumerConfig, plain: bool) -> Self {
        let (cap, batch_max) = if plain { (config.hold, PLAIN_MAX) } else { (config.in_transaction, config.tx_batch) };
        Self {
            cap,
            plain,
            batch_max,
            batches_max: BATCHES_MAX.min(config.concurrency),
            limit: FIRST.min(batch_max),
            next: NextLook::Held,
            exhausted: None,
        }
    }

    /// Whether leased messages wait with their handlers for a batch that has been held for so long, so that not more than
    /// `concurrency` run at a time. Not for one whose handler blocks its thread.
    pub(super) fn is_short(&self, held_for: Option<Duration>) -> bool {
        self.plain && held_for.is_some_and(|held_for| held_for < self.cap.unwrap_or_default() + GRACE)
    }

    /// What the next look is for, in a process of this age.
    pub(super) fn next_look(&self, age: Duration, busy: &Busy) -> NextLook {
        let is_free = !self.plain
            || busy.average <= SHORT && busy.running == 0 && (busy.held_for.is_none() || self.is_short(busy.held_for));
        let held = self.cap.is_some() && age >= LEASES_FIRST && is_free;
        match self.next {
            NextLook::Held if !held => NextLook::Leased,
            next => next,
        }
    }

    /// How many messages one more batch may hold, beside so many others, and for how long.
    pub(super) fn batch(&self, batches: usize) -> Option<(usize, Duration)> {
        self.cap.filter(|_| batches < self.batches_max).map(|cap| (self.limit, cap))
    }

    /// A look has found what its batch holds: more of the same while batches come full. Returns what it says for
    /// parking, if it is all there is.
    pub(super) fn looked(&mut self, exhausted: Exhausted) -> Option<Exhausted> {
        if self.plain {
            return Some(exhausted);
        }
        self.exhausted = Some(exhausted);
        None
    }

    /// A look for leases took so many.
    pub(super) fn leased(&mut self, look: &Look, took: usize) {
        self.next = match (self.next, look.next()) {
            (NextLook::Refused(left), NextLook::Refused(_)) if left > took && took > 0 => {
                NextLook::Refused(left - took)
            }
            (NextLook::Refused(_), NextLook::Refused(_)) | (NextLook::Others, NextLook::Others) => NextLook::Held,
            // A batch has ended meanwhile, and wants another look.
            (next, _) => next,
        };
    }

    /// What a look for leases that took all there was says for parking, together with the one before it that held.
    pub(super) fn exhausted(&mut self, look: &Look, exhausted: Exhausted) -> Exhausted {
        let held = self.exhausted.take_if(|_| look.next() == NextLook::Others);
        held.map_or(exhausted, |held| exhausted.and(held))
    }

    pub(super) fn ended(&mut self, batch: &HeldBatch) -> Then {
        let HeldBatch { look, limit, took, refused, duration, .. } = batch;
        let begun = &batch.begun();
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
            self.limit = (self.limit * 2).min(fits).clamp(1, self.batch_max);
        }
        if begun < took {
            // The cap came first.
            Then::LookAgain(Found::Drain)
        } else if took < limit && !self.plain {
            self.next = NextLook::Others;
            Then::AlsoLook(if *took > 0 { Found::Drain } else { look.why() })
        } else {
            Then::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::reached::Start;

    const OLD: Duration = LEASES_FIRST;
    /// Transactional handlers are held however long they take.
    const SLOW: Busy = Busy { average: Duration::from_secs(1), running: 0, held_for: None };

    fn holding(tx_batch: usize) -> Holding {
        let in_transaction = Some(Duration::from_secs(1));
        Holding::new(&ConsumerConfig { tx_batch, in_transaction, ..ConsumerConfig::default() }, false)
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
    fn a_process_that_has_just_started_leases_and_so_does_one_that_never_holds() {
        let holding = holding(100);
        assert_eq!(holding.next_look(LEASES_FIRST / 2, &SLOW), NextLook::Leased);
        assert_eq!(holding.next_look(LEASES_FIRST, &SLOW), NextLook::Held);
        assert_eq!(Holding::new(&ConsumerConfig::default(), false).next_look(OLD, &SLOW), NextLook::Leased);
    }

    #[test]
    fn when_nothing_is_left_to_hold_other_messages_are_leased_once() {
        let mut holding = holding(100);
        assert_eq!(holding.ended(&batch(16, 16, 16)), Then::Nothing);
        assert_eq!(holding.ended(&batch(16, 3, 3)), Then::AlsoLook(Found::Drain));
        assert_eq!(holding.next_look(OLD, &SLOW), NextLook::Others);
        holding.leased(&look(NextLook::Others), 0);
        assert_eq!(holding.next_look(OLD, &SLOW), NextLook::Held);
        assert_eq!(holding.ended(&batch(16, 0, 0)), Then::AlsoLook(Found::Bell));
    }

    #[test]
    fn a_batch_that_was_rolled_back_is_leased_until_so_many_were_taken() {
        let mut holding = holding(100);
        let refused = HeldBatch { refused: true, ..batch(16, 5, 0) };
        assert_eq!(holding.ended(&refused), Then::LookAgain(Found::Bell));
        for (took, next) in [(2, NextLook::Refused(3)), (1, NextLook::Refused(2)), (2, NextLook::Held)] {
            holding.leased(&look(NextLook::Refused(5)), took);
            assert_eq!(holding.next_look(OLD, &SLOW), next);
        }
    }

    #[test]
    fn a_target_that_does_not_allow_to_hold_is_leased_from_and_asked_again() {
        let mut holding = holding(100);
        let refused = HeldBatch { refused: true, ..batch(16, 0, 0) };
        assert_eq!(holding.ended(&refused), Then::Look(Found::Bell));
        let everywhere = HeldBatch { look: Look::for_a_bell(NextLook::Held, Start::Beginning), ..refused };
        assert_eq!(holding.ended(&everywhere), Then::LookAgain(Found::Bell), "such a look is still to be made");
        holding.leased(&look(NextLook::Refused(1)), 0);
        assert_eq!(holding.next_look(OLD, &SLOW), NextLook::Held);
    }

    #[test]
    fn a_rolled_back_batch_is_not_forgotten_for_a_look_that_was_under_way() {
        let mut holding = holding(100);
        holding.ended(&HeldBatch { refused: true, ..batch(16, 5, 0) });
        holding.leased(&look(NextLook::Others), 7);
        assert_eq!(holding.next_look(OLD, &SLOW), NextLook::Refused(5));
    }

    #[test]
    fn batches_grow_while_they_fit_into_half_of_the_cap_and_shrink_when_they_are_rolled_back() {
        let mut holding = holding(100);
        let limits: Vec<usize> = (0..4)
            .map(|_| {
                let (limit, _) = holding.batch(0).unwrap();
                holding.ended(&batch(limit, limit, limit));
                limit
            })
            .collect();
        assert_eq!(limits, [16, 32, 64, 100]);
        holding.ended(&HeldBatch { duration: Duration::from_millis(500), ..batch(100, 10, 10) });
        assert_eq!(holding.batch(0), Some((10, Duration::from_secs(1))));
        holding.ended(&HeldBatch { refused: true, ..batch(10, 10, 0) });
        assert_eq!(holding.batch(BATCHES_MAX - 1), Some((5, Duration::from_secs(1))));
        assert_eq!(holding.batch(BATCHES_MAX), None);
    }

    #[test]
    fn plain_handlers_are_held_while_they_are_short_and_nothing_else_is_looked_for() {
        let mut holding = Holding::new(&ConsumerConfig::default(), true);
        let short = Busy { average: SHORT, ..Busy::default() };
        assert_eq!(holding.next_look(OLD, &Busy { average: SHORT * 2, ..short }), NextLook::Leased);
        assert_eq!(holding.next_look(LEASES_FIRST / 2, &short), NextLook::Leased);
        assert_eq!(holding.next_look(OLD, &short), NextLook::Held);
        assert_eq!(holding.ended(&batch(16, 3, 3)), Then::Nothing);
        assert_eq!(holding.next_look(OLD, &short), NextLook::Held);
        assert_eq!(holding.ended(&batch(16, 3, 2)), Then::LookAgain(Found::Drain), "one was not begun in time");
    }

    #[test]
    fn leased_handlers_and_held_ones_wait_for_each_other_but_not_for_one_that_blocks_its_thread() {
        let holding = Holding::new(&ConsumerConfig::default(), true);
        let running = Busy { average: SHORT, running: 1, held_for: None };
        assert_eq!(holding.next_look(OLD, &running), NextLook::Leased);
        let just_begun = Some(Duration::from_millis(100));
        let blocked = Some(Duration::from_millis(100) + GRACE);
        assert!(holding.is_short(just_begun) && !holding.is_short(blocked) && !holding.is_short(None));
        assert_eq!(holding.next_look(OLD, &Busy { running: 0, held_for: just_begun, ..running }), NextLook::Held);
        assert_eq!(holding.next_look(OLD, &Busy { running: 0, held_for: blocked, ..running }), NextLook::Leased);
    }

    #[test]
    fn what_the_cap_left_unbegun_is_looked_for_from_the_beginning() {
        assert_eq!(holding(100).ended(&batch(16, 16, 9)), Then::LookAgain(Found::Drain));
    }

    #[test]
    fn the_queue_is_exhausted_when_both_ways_are() {
        let mut holding = holding(100);
        let held = Exhausted { nothing: false, why: Found::Bell, everywhere: true, oldest_xid: 4 };
        let others = Exhausted { nothing: true, why: Found::Drain, everywhere: true, oldest_xid: 5 };
        assert_eq!(holding.looked(held), None);
        assert_eq!(holding.exhausted(&look(NextLook::Refused(1)), others), others);
        assert_eq!(holding.exhausted(&look(NextLook::Others), others), others.and(held));
        assert_eq!(holding.exhausted(&look(NextLook::Others), others), others, "said once");
    }
}
