//! What a look saw.

use std::time::SystemTime;

use crate::store::{Looked, Passed, Place};

/// What a look saw.
#[derive(Debug)]
pub(super) struct Observed {
    /// The oldest transaction that was running before it.
    pub(super) oldest_xid: i64,
    pub(super) next_xid: i64,
    pub(super) now: SystemTime,
    limited: bool,
    /// A gate may have cut it short, or kept it from looking at all.
    pub(super) gated: bool,
    /// What was met, in claiming order: taken, or left because its key is busy.
    pub(super) met: Vec<Taken>,
    /// How many messages were taken.
    took: usize,
    /// Some of what was met has a key.
    keyed: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) priority: i32,
    pub(super) place: Place,
    /// Its place among what became pending again, if it did.
    pub(super) again: Option<Place>,
}

impl Observed {
    pub(super) fn of(looked: &Looked) -> Self {
        let Looked {
            oldest_xid,
            next_xid,
            now,
            limited,
            gated,
            in_parts: _,
            turned_away: _,
            deliveries,
            passed,
            opens_in: _,
        } = looked;
        // What was taken with others of its key, and was not looked at, says nothing of those before it.
        let taken = deliveries.iter().filter(|delivery| !delivery.ahead).map(|delivery| Taken {
            priority: delivery.priority,
            place: (delivery.created_at, delivery.id),
            again: delivery.requeued_at.map(|at| (at, delivery.id)),
        });
        let passed_over = passed.iter().filter_map(|Passed { priority, place, requeued_at }| {
            let place = (*place)?;
            Some(Taken { priority: *priority, place, again: requeued_at.map(|at| (at, place.1)) })
        });
        Self {
            oldest_xid: *oldest_xid,
            next_xid: *next_xid,
            now: *now,
            limited: *limited,
            gated: *gated,
            met: taken.chain(passed_over).collect(),
            took: deliveries.len(),
            keyed: !passed.is_empty() || deliveries.iter().any(|delivery| delivery.ordering_key.is_some()),
        }
    }

    /// Messages with a key were met.
    pub(super) fn is_keyed(&self) -> bool {
        self.keyed
    }

    /// The target has a limit of messages in flight.
    pub(super) fn is_limited(&self) -> bool {
        self.limited
    }

    /// How many messages were taken.
    pub(super) fn took(&self) -> usize {
        self.took
    }

    #[cfg(test)]
    pub(super) fn nothing() -> Self {
        Self::saw(0, 0, SystemTime::UNIX_EPOCH, Vec::new())
    }

    #[cfg(test)]
    pub(super) fn saw(oldest_xid: i64, next_xid: i64, now: SystemTime, met: Vec<Taken>) -> Self {
        let took = met.len();
        Self { oldest_xid, next_xid, now, limited: false, gated: false, met, took, keyed: false }
    }

    #[cfg(test)]
    pub(super) fn keyed(self) -> Self {
        Self { keyed: true, ..self }
    }

    #[cfg(test)]
    pub(super) fn gated(self) -> Self {
        Self { gated: true, ..self }
    }

    #[cfg(test)]
    pub(super) fn limited(self) -> Self {
        Self { limited: true, ..self }
    }
}
