//! Where the next look into the queue begins.
//!
//! Dead index entries pile up at the front of a queue while anything holds back the vacuum horizon, and a look from the
//! beginning walks over all of them. So a consumer remembers, for each priority it has seen, a place behind which it has
//! taken everything. A message published before the place was reached may still appear behind it when its transaction
//! commits late; the place therefore only moves on to where a look ended once every transaction that was running then has
//! ended, as the ids of transactions tell: the same barrier as for parking.
//!
//! What a place cannot know (a `created_at` set by hand) is found by looks from the beginning: each sweep, the last look
//! before parking, and after a bell for which nothing was found. What became pending again has an index of its own.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    message::MessageId,
    store::{Looked, Ranges},
};

/// Priorities that are remembered; of more, those that messages came from last.
const LANES_MAX: usize = 8;
/// Messages taken since the places moved. Beyond that a transaction has been running for long, and walking over what was
/// taken since would cost more than looking for late commits now and then.
const LAG_MAX: usize = 5_000;
/// A look from the beginning may take this part of the time, where it is not due by the clock.
const FULL_SHARE: u32 = 50;

type Place = (SystemTime, MessageId);

/// Where a look begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// At the places.
    Marks,
    /// Where the last look ended: misses late commits.
    Last,
    /// At the beginning: finds everything.
    Beginning,
}

/// What a look tells about places.
#[derive(Debug)]
pub(super) struct Sight {
    /// The oldest transaction that was running before it.
    pub(super) oldest_xid: i64,
    next_xid: i64,
    now: SystemTime,
    /// The messages taken, in claiming order: priority and place.
    taken: Vec<(i32, Place)>,
}

impl Sight {
    pub(super) fn of(looked: &Looked) -> Self {
        let Looked { oldest_xid, next_xid, now, deliveries, .. } = looked;
        let taken = deliveries.iter().map(|delivery| (delivery.priority, (delivery.created_at, delivery.id))).collect();
        Self { oldest_xid: *oldest_xid, next_xid: *next_xid, now: *now, taken }
    }

    /// How many messages were taken.
    pub(super) fn took(&self) -> usize {
        self.taken.len()
    }
}

#[derive(Debug, Default)]
pub(super) struct Marks {
    lanes: BTreeMap<i32, Lane>,
    checkpoint: Option<Checkpoint>,
    lag: usize,
    looks: u64,
    /// How long the last look from the beginning took, and when it ended.
    full: Option<(Duration, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Lane {
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

impl Marks {
    /// Begins with places that another consumer has kept.
    pub(super) fn load(kept: impl IntoIterator<Item = (i32, SystemTime, MessageId)>) -> Self {
        let lanes = kept.into_iter().take(LANES_MAX).map(|(priority, at, id)| {
            let place = (at, id);
            (priority, Lane { place: Some(place), last: place, used: 0 })
        });
        Self { lanes: lanes.collect(), ..Self::default() }
    }

    /// What to keep for the next consumer.
    pub(super) fn kept(&self) -> Vec<(i32, SystemTime, MessageId)> {
        self.lanes.iter().filter_map(|(priority, lane)| lane.place.map(|(at, id)| (*priority, at, id))).collect()
    }

    /// Where the next look that is not to find everything begins.
    pub(super) fn from(&self) -> From {
        match &self.checkpoint {
            // Nothing can be gained from walking over it before the barrier has passed.
            Some(_) if self.lag > LAG_MAX => From::Last,
            _ => From::Marks,
        }
    }

    /// The ranges of such a look, in the order of visiting; `None`: one range, everything. `lowest_first` visits the
    /// priorities backwards.
    pub(super) fn ranges(&self, from: From, lowest_first: bool) -> Option<Ranges> {
        if from == From::Beginning && !lowest_first || self.lanes.is_empty() {
            return None;
        }
        let mut ranges = Ranges::default();
        let mut above = i32::MAX;
        let mut open = true;
        for (&priority, lane) in self.lanes.iter().rev() {
            if open && priority < above {
                ranges.push(priority + 1, above, None);
            }
            let place = match from {
                From::Marks => lane.place,
                From::Last => Some(lane.last),
                From::Beginning => None,
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

    /// Learns from a look that was made `from` there, in the usual order or not. `exhausted`: it took all there was.
    pub(super) fn looked(&mut self, from: From, lowest_first: bool, exhausted: bool, look: &Sight) {
        self.looks += 1;
        if self.lanes.values().any(|lane| lane.last.0 > look.now) {
            // The server's clock was put back, or it is another server: what is new sorts before the places.
            (self.lanes, self.checkpoint, self.lag) = Default::default();
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            let barrier = *checkpoint.barrier.get_or_insert(look.next_xid);
            if look.oldest_xid >= barrier {
                // This look has seen what was committed late; what it did not get to, it may not have.
                let places = self.checkpoint.take().map(|checkpoint| checkpoint.places).unwrap_or_default();
                if from == From::Last {
                    // Once more, from the places: they would stay where they are for ever.
                    self.lag = 0;
                } else {
                    self.settle(places, lowest_first, exhausted, look.taken.last().copied());
                }
            }
        }
        // Times of the future were set by hand; a place there would hide everything that follows.
        for &(priority, place) in look.taken.iter().filter(|(_, (at, _))| *at <= look.now) {
            let lane = self.lanes.entry(priority).or_insert(Lane { place: None, last: place, used: 0 });
            lane.last = lane.last.max(place);
            lane.used = self.looks;
        }
        self.lag += look.taken.len();
        while self.lanes.len() > LANES_MAX {
            let oldest = self.lanes.iter().min_by_key(|(_, lane)| lane.used).map(|(priority, _)| *priority);
            oldest.map(|priority| self.lanes.remove(&priority));
        }
        if self.checkpoint.is_none() && self.lag > 0 {
            let places = self.lanes.iter().map(|(priority, lane)| (*priority, lane.last)).collect();
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
            if got_to && let Some(lane) = self.lanes.get_mut(&priority) {
                lane.place = lane.place.max(Some(place));
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

    fn look(oldest_xid: i64, next_xid: i64, taken: Vec<(i32, Place)>) -> Sight {
        Sight { oldest_xid, next_xid, now: at(10_000), taken }
    }

    fn place(seconds: u64, id: MessageId) -> Option<Place> {
        Some((at(seconds), id))
    }

    #[test]
    fn a_place_moves_when_no_transaction_of_its_time_is_left() {
        let mut marks = Marks::default();
        assert_eq!(marks.ranges(From::Marks, false), None);
        marks.looked(From::Marks, false, false, &look(10, 10, vec![message(0, 1, 1), message(0, 2, 2)]));
        // Transaction 11 has been running since before this look: it may still commit something older than message 2.
        marks.looked(From::Marks, false, false, &look(11, 12, vec![message(0, 3, 3)]));
        assert_eq!(marks.lanes[&0].place, None);
        marks.looked(From::Marks, false, false, &look(12, 14, vec![message(0, 4, 4)]));
        assert_eq!(marks.lanes[&0].place, place(2, 2));
        let ranges = marks.ranges(From::Marks, false).unwrap();
        assert_eq!(ranges.lows, [1, 0, i32::MIN]);
        assert_eq!(ranges.highs, [i32::MAX, 0, -1]);
        assert_eq!(ranges.after_ids, [0, 2, 0]);
    }

    #[test]
    fn a_look_that_ended_before_a_priority_says_nothing_about_it() {
        let mut marks = Marks::default();
        marks.looked(From::Marks, false, true, &look(10, 10, vec![message(5, 1, 1), message(0, 2, 2)]));
        // Full, and all of it of the higher priority.
        marks.looked(From::Marks, false, false, &look(11, 11, vec![message(5, 3, 3)]));
        assert_eq!((marks.lanes[&5].place, marks.lanes[&0].place), (place(1, 1), None));
        marks.looked(From::Marks, false, true, &look(12, 12, vec![]));
        marks.looked(From::Marks, false, true, &look(13, 13, vec![]));
        assert_eq!((marks.lanes[&5].place, marks.lanes[&0].place), (place(3, 3), place(2, 2)));
    }

    #[test]
    fn behind_a_long_transaction_looks_begin_where_the_last_one_ended() {
        let mut marks = Marks::default();
        for n in 0..=LAG_MAX as i64 {
            marks.looked(From::Marks, false, false, &look(10, 20 + n, vec![message(0, n as u64, n)]));
        }
        assert_eq!(marks.from(), From::Last);
        let ranges = marks.ranges(From::Last, false).unwrap();
        assert_eq!(ranges.after_ids[1], LAG_MAX as MessageId);
        marks.looked(From::Last, false, true, &look(90_000, 90_000, vec![]));
        assert_eq!(marks.from(), From::Marks);
    }

    #[test]
    fn ranges_cover_every_priority_once_also_at_the_ends() {
        let mut marks = Marks::default();
        let seen = [i32::MAX, 7, 6, 0, i32::MIN].map(|priority| message(priority, 1, 1));
        marks.looked(From::Marks, false, true, &look(1, 1, seen.to_vec()));
        let ranges = marks.ranges(From::Marks, false).unwrap();
        assert_eq!(ranges.highs[0], i32::MAX);
        assert_eq!(*ranges.lows.last().unwrap(), i32::MIN);
        for (low, above) in ranges.lows.iter().zip(&ranges.highs[1..]) {
            assert_eq!(low - 1, *above);
        }
        let mut backwards = marks.ranges(From::Marks, true).unwrap();
        backwards.reverse();
        assert_eq!(backwards, ranges);
    }

    #[test]
    fn times_of_the_future_move_nothing_and_a_clock_put_back_forgets_all() {
        let mut marks = Marks::default();
        marks.looked(From::Marks, false, true, &look(1, 1, vec![message(0, 1, 1), message(0, 20_000, 2)]));
        marks.looked(From::Marks, false, true, &look(2, 2, vec![]));
        assert_eq!(marks.lanes[&0].place, place(1, 1));
        let put_back = Sight { now: UNIX_EPOCH, ..look(3, 3, vec![]) };
        marks.looked(From::Marks, false, true, &put_back);
        assert!(marks.lanes.is_empty());
    }

    #[test]
    fn only_so_many_priorities_are_remembered_those_used_last() {
        let mut marks = Marks::default();
        for priority in 0..20 {
            marks.looked(From::Marks, false, true, &look(1, 1, vec![message(priority, 1, 1)]));
        }
        assert_eq!(marks.lanes.keys().copied().collect::<Vec<_>>(), (12..20).collect::<Vec<_>>());
    }
}
