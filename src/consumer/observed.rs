//! What a look saw.

use std::time::SystemTime;

use crate::store::{Looked, Place};

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
    /// The messages taken, in claiming order.
    pub(super) taken: Vec<Taken>,
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
        let Looked { oldest_xid, next_xid, now, limited, gated, in_parts: _, deliveries } = looked;
        let taken = deliveries.iter().map(|delivery| Taken {
            priority: delivery.priority,
            place: (delivery.created_at, delivery.id),
            again: delivery.requeued_at.map(|at| (at, delivery.id)),
        });
        let taken = taken.collect();
        Self { oldest_xid: *oldest_xid, next_xid: *next_xid, now: *now, limited: *limited, gated: *gated, taken }
    }

    /// The target has a limit of messages in flight.
    pub(super) fn is_limited(&self) -> bool {
        self.limited
    }

    /// How many messages were taken.
    pub(super) fn took(&self) -> usize {
        self.taken.len()
    }

    #[cfg(test)]
    pub(super) fn nothing() -> Self {
        Self::saw(0, 0, SystemTime::UNIX_EPOCH, Vec::new())
    }

    #[cfg(test)]
    pub(super) fn saw(oldest_xid: i64, next_xid: i64, now: SystemTime, taken: Vec<Taken>) -> Self {
        Self { oldest_xid, next_xid, now, limited: false, gated: false, taken }
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
