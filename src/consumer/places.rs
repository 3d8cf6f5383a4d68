//! Where the next look into the queue begins.
//!
//! Dead index entries pile up at the front of a queue while anything holds back the vacuum horizon, and a look from the
//! beginning walks over all of them. So a consumer remembers, for each priority it has seen, a place behind which it
//! has taken everything. A message published before the place was reached may still appear behind it when its
//! transaction commits late; the place therefore only moves on to where a look ended once every transaction that was
//! running then has ended, as the ids of transactions tell: the same barrier as for parking.
//!
//! What a place cannot know (a `created_at` set by hand) is found by looks from the beginning: each sweep, the last
//! look before parking, and after a bell for which nothing was found. What became pending again has an index of its
//! own.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    message::MessageId,
    store::{Looked, Ranges},
};

/// Priorities that are remembered; of more, those that messages came from last.
const PRIORITIES_MAX: usize = 8;
/// Messages taken since the places moved. Beyond that a transaction has been running for long, and walking over what
/// was taken since would cost more than looking for late commits now and then.
const LAG_MAX: usize = 5_000;
/// A look from the beginning may take this part of the time, where it is not due by the clock.
const FULL_SHARE: u32 = 50;

type Place = (SystemTime, MessageId);

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

/// What a look saw.
#[derive(Debug)]
pub(super) struct Observed {
    /// The oldest transaction that was running before it.
    oldest_xid: i64,
    next_xid: i64,
    now: SystemTime,
    limited: bool,
    /// The messages taken, in claiming order: priority and place.
    taken: Vec<(i32, Place)>,
}

impl Observed {
    pub(super) fn of(looked: &Looked) -> Self {
        let Looked { oldest_xid, next_xid, now, limited, in_parts: _, deliveries } = looked;
        let taken = deliveries.iter().map(|delivery| (delivery.priority, (delivery.created_at, delivery.id))).collect();
        Self { oldest_xid: *oldest_xid, next_xid: *next_xid, now: *now, limited: *limited, taken }
    }

    pub(super) fn oldest_xid(&self) -> i64 {
        self.oldest_xid
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
        Self { oldest_xid: 0, next_xid: 0, now: SystemTime::UNIX_EPOCH, limited: false, taken: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn limited(self) -> Self {
        Self { limited: true, ..self }
    }
}

#[derive(Debug, Default)]
pub(super) struct Places {
    reached: BTreeMap<i32, Reached>,
    checkpoint: Option<Checkpoint>,
    lag: usize,
    looks: u64,
    /// How long the last look from the beginning took, and when it ended.
    full: Option<(Duration, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Reached {
    /// Everything behind it was taken, and no running transaction may add to it. `None`: from the beginning.
    place: Option<Place>,
    /// The last message taken.
    last: Place,
    /// The look that took it.
    used: u64,
}

/// Places on their way: valid once no transaction older than the barrier is running.
#[derive(Debug)]
struct Checkpoint {
    barrier: Option<i64>,
    places: BTreeMap<i32, Place>,
}

impl Places {
    /// Begins with places that another consumer has kept.
    pub(super) fn load(kept: impl IntoIterator<Item = (i32, SystemTime, MessageId)>) -> Self {
        let reached = kept.into_iter().take(PRIORITIES_MAX).map(|(priority, at, id)| {
            let place = (at, id);
            (priority, Reached { place: Some(place), last: place, used: 0 })
        });
        Self { reached: reached.collect(), ..Self::default() }
    }

    /// What to keep for the next consumer.
    pub(super) fn kept(&self) -> Vec<(i32, SystemTime, MessageId)> {
        self.reached
            .iter()
            .filter_map(|(priority, reached)| reached.place.map(|(at, id)| (*priority, at, id)))
            .collect()
    }

    /// Where the next look that is not to find everything begins.
    pub(super) fn start(&self) -> Start {
        match &self.checkpoint {
            // Nothing can be gained from walking over it before the barrier has passed.
            Some(_) if self.lag > LAG_MAX => Start::Last,
            _ => Start::Places,
        }
    }

    /// The ranges of such a look, in the order of visiting; `None`: one range, everything. `lowest_first` visits the
    /// priorities backwards.
    pub(super) fn ranges(&self, start: Start, lowest_first: bool) -> Option<Ranges> {
        if start == Start::Beginning && !lowest_first || self.reached.is_empty() {
            return None;
        }
        let mut ranges = Ranges::default();
        let mut above = i32::MAX;
        let mut open = true;
        for (&priority, reached) in self.reached.iter().rev() {
            if open && priority < above {
                ranges.push(priority + 1, above, None);
            }
            let place = match start {
                Start::Places => reached.place,
                Start::Last => Some(reached.last),
                Start::Beginning => None,
            };
            ranges.push(priority, priority, place);
            open = priority > i32::MIN;
            above = priority.saturating_sub(1);
        }
        if open {
            ranges.push(i32::MIN, above, None);
        }
        if lowest_first {
            ranges.reverse();
        }
        Some(ranges)
    }

    /// Learns from a look that was begun at `start`, in the usual order or not. `exhausted`: it took all there was.
    pub(super) fn looked(&mut self, start: Start, lowest_first: bool, exhausted: bool, observed: &Observed) {
        self.looks += 1;
        if self.reached.values().any(|reached| reached.last.0 > observed.now) {
            // The server's clock was put back, or it is another server: what is new sorts before the places.
            (self.reached, self.checkpoint, self.lag) = Default::default();
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            let barrier = *checkpoint.barrier.get_or_insert(observed.next_xid);
            if observed.oldest_xid >= barrier {
                // This look has seen what was committed late; what it did not get to, it may not have.
                let places = self.checkpoint.take().map(|checkpoint| checkpoint.places).unwrap_or_default();
                if start == Start::Last {
                    // Once more, from the places: they would stay where they are for ever.
                    self.lag = 0;
                } else {
                    self.settle(places, lowest_first, exhausted, observed.taken.last().copied());
                }
            }
        }
        // Times of the future were set by hand; a place there would hide everything that follows.
        for &(priority, place) in observed.taken.iter().filter(|(_, (at, _))| *at <= observed.now) {
            let reached = self.reached.entry(priority).or_insert(Reached { place: None, last: place, used: 0 });
            reached.last = reached.last.max(place);
            reached.used = self.looks;
        }
        self.lag += observed.taken.len();
        while self.reached.len() > PRIORITIES_MAX {
            let oldest = self.reached.iter().min_by_key(|(_, reached)| reached.used).map(|(priority, _)| *priority);
            oldest.map(|priority| self.reached.remove(&priority));
        }
        if self.checkpoint.is_none() && self.lag > 0 {
            let places = self.reached.iter().map(|(priority, reached)| (*priority, reached.last)).collect();
            self.checkpoint = Some(Checkpoint { barrier: None, places });
        }
    }

    fn settle(&mut self, places: BTreeMap<i32, Place>, lowest_first: bool, exhausted: bool, end: Option<(i32, Place)>) {
        for (priority, place) in places {
            let got_to = match end {
                _ if exhausted => true,
                Some((end, at)) if !lowest_first => priority > end || (priority == end && at >= place),
                _ => false,
            };
            if got_to && let Some(reached) = self.reached.get_mut(&priority) {
                reached.place = reached.place.max(Some(place));
            }
        }
        self.lag = 0;
    }

    /// Notes how long a look from the beginning took.
    pub(super) fn looked_everywhere(&mut self, took: Duration) {
        self.full = Some((took, Instant::now()));
    }

    /// How long to wait before another one that is not due by the clock.
    pub(super) fn full_in(&self) -> Duration {
        self.full.map_or(Duration::ZERO, |(took, at)| (took * FULL_SHARE).saturating_sub(at.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn message(priority: i32, seconds: u64, id: MessageId) -> (i32, Place) {
        (priority, (at(seconds), id))
    }

    fn look(oldest_xid: i64, next_xid: i64, taken: Vec<(i32, Place)>) -> Observed {
        Observed { oldest_xid, next_xid, now: at(10_000), limited: false, taken }
    }

    fn place(seconds: u64, id: MessageId) -> Option<Place> {
        Some((at(seconds), id))
    }

    #[test]
    fn a_place_moves_when_no_transaction_of_its_time_is_left() {
        let mut places = Places::default();
        assert_eq!(places.ranges(Start::Places, false), None);
        places.looked(Start::Places, false, false, &look(10, 10, vec![message(0, 1, 1), message(0, 2, 2)]));
        // Transaction 11 has been running since before this look: it may still commit something older than message 2.
        places.looked(Start::Places, false, false, &look(11, 12, vec![message(0, 3, 3)]));
        assert_eq!(places.reached[&0].place, None);
        places.looked(Start::Places, false, false, &look(12, 14, vec![message(0, 4, 4)]));
        assert_eq!(places.reached[&0].place, place(2, 2));
        let ranges = places.ranges(Start::Places, false).unwrap();
        assert_eq!(ranges.lows, [1, 0, i32::MIN]);
        assert_eq!(ranges.highs, [i32::MAX, 0, -1]);
        assert_eq!(ranges.after_ids, [0, 2, 0]);
    }

    #[test]
    fn a_look_that_ended_before_a_priority_says_nothing_about_it() {
        let mut places = Places::default();
        places.looked(Start::Places, false, true, &look(10, 10, vec![message(5, 1, 1), message(0, 2, 2)]));
        // Full, and all of it of the higher priority.
        places.looked(Start::Places, false, false, &look(11, 11, vec![message(5, 3, 3)]));
        assert_eq!((places.reached[&5].place, places.reached[&0].place), (place(1, 1), None));
        places.looked(Start::Places, false, true, &look(12, 12, vec![]));
        places.looked(Start::Places, false, true, &look(13, 13, vec![]));
        assert_eq!((places.reached[&5].place, places.reached[&0].place), (place(3, 3), place(2, 2)));
    }

    #[test]
    fn behind_a_long_transaction_looks_begin_where_the_last_one_ended() {
        let mut places = Places::default();
        for n in 0..=LAG_MAX as i64 {
            places.looked(Start::Places, false, false, &look(10, 20 + n, vec![message(0, n as u64, n)]));
        }
        assert_eq!(places.start(), Start::Last);
        let ranges = places.ranges(Start::Last, false).unwrap();
        assert_eq!(ranges.after_ids[1], LAG_MAX as MessageId);
        places.looked(Start::Last, false, true, &look(90_000, 90_000, vec![]));
        assert_eq!(places.start(), Start::Places);
    }

    #[test]
    fn ranges_cover_every_priority_once_also_at_the_ends() {
        let mut places = Places::default();
        let seen = [i32::MAX, 7, 6, 0, i32::MIN].map(|priority| message(priority, 1, 1));
        places.looked(Start::Places, false, true, &look(1, 1, seen.to_vec()));
        let ranges = places.ranges(Start::Places, false).unwrap();
        assert_eq!(ranges.highs[0], i32::MAX);
        assert_eq!(*ranges.lows.last().unwrap(), i32::MIN);
        for (low, above) in ranges.lows.iter().zip(&ranges.highs[1..]) {
            assert_eq!(low - 1, *above);
        }
        let mut backwards = places.ranges(Start::Places, true).unwrap();
        backwards.reverse();
        assert_eq!(backwards, ranges);
    }

    #[test]
    fn times_of_the_future_move_nothing_and_a_clock_put_back_forgets_all() {
        let mut places = Places::default();
        places.looked(Start::Places, false, true, &look(1, 1, vec![message(0, 1, 1), message(0, 20_000, 2)]));
        places.looked(Start::Places, false, true, &look(2, 2, vec![]));
        assert_eq!(places.reached[&0].place, place(1, 1));
        let put_back = Observed { now: UNIX_EPOCH, ..look(3, 3, vec![]) };
        places.looked(Start::Places, false, true, &put_back);
        assert!(places.reached.is_empty());
    }

    #[test]
    fn only_so_many_priorities_are_remembered_those_used_last() {
        let mut places = Places::default();
        for priority in 0..20 {
            places.looked(Start::Places, false, true, &look(1, 1, vec![message(priority, 1, 1)]));
        }
        assert_eq!(places.reached.keys().copied().collect::<Vec<_>>(), (12..20).collect::<Vec<_>>());
    }
}
