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
mod tests {
    use super::*;

    fn gaps(window: &Window) -> Vec<(i64, i64)> {
        window.gaps.iter().map(|gap| (gap.first, gap.last)).collect()
    }

    #[test]
    fn ids_that_come_late_fill_the_gaps_they_left() {
        let (mut window, now) = (Window::default(), Instant::now());
        window.saw([1, 2, 5, 9].into_iter(), true, 0.0, now);
        assert_eq!((window.end, gaps(&window)), (9, vec![(3, 4), (6, 8)]));
        window.saw([7, 10, 3].into_iter(), true, 0.0, now);
        assert_eq!((window.end, gaps(&window)), (10, vec![(4, 4), (6, 6), (8, 8)]));
    }

    #[test]
    fn gaps_do_not_pile_up_without_end() {
        let (mut window, now) = (Window::default(), Instant::now());
        let every_other = (1..=GAPS_MAX as i64 + 10).map(|n| 2 * n);
        window.saw(every_other, true, 0.0, now);
        assert_eq!((window.gaps.len(), gaps(&window)[0]), (GAPS_MAX, (21, 21)));
    }

    #[test]
    fn a_gap_is_looked_into_until_everybody_who_ran_when_it_was_noticed_is_gone() {
        let (mut window, start) = (Window::default(), Instant::now());
        window.saw([1, 3].into_iter(), true, 0.0, start);
        let later = start + GAP_MIN;
        // Who runs now may fill it: the barrier is set by the look after it was noticed.
        window.look(100, 105, start);
        window.saw([].into_iter(), true, 0.0, start);
        window.look(104, 200, later);
        window.saw([].into_iter(), true, 0.0, later);
        assert_eq!(gaps(&window), [(2, 2)], "transaction 104 still runs");
        window.look(105, 201, start + GAP_MIN / 2);
        window.saw([].into_iter(), true, 0.0, start);
        assert_eq!(gaps(&window), [(2, 2)], "whoever drew the id may not have had a number yet");
        window.look(105, 202, later);
        window.saw([].into_iter(), false, 0.0, later);
        assert_eq!(gaps(&window), [(2, 2)], "the look was cut short");
        window.look(105, 202, later);
        window.saw([].into_iter(), true, 0.0, later);
        assert_eq!(gaps(&window), []);
    }
}
