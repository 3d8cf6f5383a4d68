//! Which rows of a growing table were seen.
//!
//! Ids are given out in order but become visible at commit, so an id that is missing may still come. A [`Window`] keeps the
//! gaps between the ids seen, and looks into them again until nobody is left who could fill them.

use std::time::{Duration, Instant};

/// An id can be drawn a moment before its transaction has a number (COPY reserves ids), so no barrier covers that moment.
const GAP_MIN: Duration = Duration::from_secs(10);

/// While some transaction stays open no gap closes, and every id that was drawn for nothing is one. Beyond so many the oldest
/// are given up: what commits into them is not told.
const GAPS_MAX: usize = 50_000;

/// Which ids of a growing table were seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    /// Every id up to this one was seen, or is in a gap.
    pub(crate) end: i64,
    /// Server time, in seconds, of the last look: what was not seen then is hardly older.
    pub(crate) looked_at: f64,
    pub(crate) gaps: Vec<Gap>,
}

/// Ids between two that were seen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gap {
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Server time, in seconds, of the look before it was noticed.
    pub(crate) since: f64,
    noticed: Instant,
    /// When no transaction below this number runs any more, nobody can fill it.
    barrier: Option<i64>,
    /// The look that is about to be made is the last one.
    last_look: bool,
}

impl Window {
    /// Before the first look: what is older than `at` is known.
    pub(crate) fn begin_at(&mut self, first: i64, at: f64) {
        self.end = first - 1;
        self.looked_at = at;
    }

    /// Before a look: which gaps it may close, given the oldest running transaction and the next one.
    pub(crate) fn look(&mut self, oldest_xid: i64, next_xid: i64, now: Instant) {
        for gap in &mut self.gaps {
            let barrier = *gap.barrier.get_or_insert(next_xid);
            gap.last_look = barrier <= oldest_xid && now.duration_since(gap.noticed) >= GAP_MIN;
        }
    }

    /// After a look: the ids it found in any order, beyond the end and in gaps. `all`: it was not cut short.
    pub(crate) fn saw(&mut self, ids: impl Iterator<Item = i64>, all: bool, at: f64, now: Instant) {
        let mut ids: Vec<i64> = ids.collect();
        ids.sort_unstable();
        if all {
            self.gaps.retain(|gap| !gap.last_look);
        }
        for id in ids {
            if id > self.end {
                if id > self.end + 1 {
                    let (first, last, since) = (self.end + 1, id - 1, self.looked_at);
                    self.gaps.push(Gap { first, last, since, noticed: now, barrier: None, last_look: false });
                }
                self.end = id;
            } else if let Some(at) = self.gaps.iter().position(|gap| (gap.first..=gap.last).contains(&id)) {
                let gap = self.gaps.remove(at);
                let rest = [Gap { last: id - 1, ..gap.clone() }, Gap { first: id + 1, ..gap }];
                self.gaps.splice(at..at, rest.into_iter().filter(|gap| gap.first <= gap.last));
            }
        }
        self.gaps.drain(..self.gaps.len().saturating_sub(GAPS_MAX));
        if all {
            self.looked_at = at;
        }
    }
}

#[cfg(test)]
#[path = "tests/window.rs"]
mod tests;
