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
const BATCH_MAX: usize = 1000;

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
            self.limit = (self.limit * 4).min(fits).clamp(1, most);
        }
        // The cap came first.
        if begun < took { Then::LookAgain(Found::Drain) } else { Then::Nothing }
    }
}

#[cfg(test)]
#[path = "tests/holding.rs"]
mod tests;
