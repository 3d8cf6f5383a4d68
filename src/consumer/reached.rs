//! How far looks got in one priority.

use super::observed::Taken;
use crate::store::Place;

/// Where a look begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At the places.
    Places,
    /// Where the last look ended: misses late commits.
    Last,
    /// At the beginning: finds everything.
    Beginning,
}

/// How far looks got in one priority.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    /// Everything behind them was taken, and no running transaction may add to it. `None`: from the beginning.
    pub(super) places: Pair<Option<Place>>,
    /// Where the last look ended.
    pub(super) last: Pair<Option<Place>>,
    /// The look that took something of it.
    pub(super) used: u64,
}

/// One of what was published, one of what became pending again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pair<T> {
    pub(super) published: T,
    pub(super) again: T,
}

impl Reached {
    pub(super) fn new(used: u64) -> Self {
        Self { places: Pair::default(), last: Pair::default(), used }
    }

    /// Whether a look that begins at `start` begins at a place in this priority. Only then what became pending again is looked
    /// for by itself, in its own order.
    pub(super) fn is_begun_at(&self, start: Start) -> bool {
        match start {
            Start::Places => self.places.published.is_some(),
            Start::Last => self.last.published.is_some(),
            Start::Beginning => false,
        }
    }

    /// A look went beyond what it would move to.
    pub(super) fn passed(&mut self, to: Pair<Option<Place>>) {
        self.places.published = self.places.published.max(to.published);
        self.places.again = self.places.again.max(to.again);
    }

    /// A look ended with the last of these. `begun`: it began at the place.
    pub(super) fn got_to<'a>(
        &mut self,
        to: Pair<Option<Place>>,
        begun: bool,
        taken: impl Iterator<Item = &'a Taken> + Clone,
    ) {
        let published = taken.clone().filter(|taken| !begun || taken.again.is_none()).map(|taken| taken.place).max();
        let again = taken.filter_map(|taken| taken.again).max();
        if published.is_some() && published >= to.published {
            self.places.published = self.places.published.max(to.published);
        }
        // What became pending again is looked for before what was published.
        if begun && (published.is_some() || again.is_some() && again >= to.again) {
            self.places.again = self.places.again.max(to.again);
        }
    }
}
