//! Where the next look into the queue begins.
//!
//! Dead index entries pile up at the front of a queue while anything holds back the vacuum horizon, and a look from the
//! beginning walks over all of them. So a consumer remembers, for each priority it has seen, a place behind which it
//! has taken everything: of what was published, and of what became pending again, which is in an index of its own. A
//! message published before the place was reached may still appear behind it when its transaction commits late; the
//! place therefore only moves on to where a look ended once every transaction that was running then has ended, as the
//! ids of transactions tell: the same barrier as for parking. Where a transaction goes on and on, it is asked whether
//! it has anything to do with the table ([`Ranges::writers`]).
//!
//! What a place cannot know (a `created_at` set by hand) is found by looks from the beginning: each sweep, the last
//! look before parking, and after a bell for which nothing was found.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime},
};

use super::{
    observed::{Observed, Taken},
    reached::{Pair, Reached, Start},
};
use crate::{
    message::MessageId,
    store::{KeptPlace, Place, Ranges},
};

/// Priorities that are remembered; of more, those that messages came from last.
const PRIORITIES_MAX: usize = 8;
/// Messages taken since the places moved. Beyond that a transaction has been running for long, and walking over what
/// was taken since would cost more than looking for late commits now and then.
const LAG_MAX: usize = 5_000;
/// The same, in time: of a transaction that has to do with the table.
const STUCK_MAX: Duration = Duration::from_secs(1);
/// Looks that places may stay where they are before it is asked who may still commit behind them.
const STUCK_LOOKS: u32 = 4;
/// Looks that were under way at the same time may come back in another order; a clock that was put back by more is noticed.
const OUT_OF_ORDER: Duration = Duration::from_secs(1);
/// Publishers that set `created_at` themselves say when their transaction began, or what their own clock shows, and rows that are
/// replicated come later: a place that no message led to stays so far behind.
const DATED_BACK: Duration = Duration::from_secs(10);
/// A look from the beginning may take this part of the time, where it is not due by the clock.
const FULL_SHARE: u32 = 50;

#[derive(Debug, Default)]
pub(super) struct Places {
    reached: BTreeMap<i32, Reached>,
    checkpoint: Option<Checkpoint>,
    lag: usize,
    /// The highest id that a look has met. After one that took all there was, nothing below it is unseen.
    highest: MessageId,
    /// They have moved over messages since they were kept.
    worth_keeping: bool,
    looks: u64,
    /// How long the last look from the beginning took, and when it ended.
    full: Option<(Duration, Instant)>,
}

/// Places on their way: valid once no transaction older than the barrier is running.
#[derive(Debug)]
struct Checkpoint {
    barrier: Option<i64>,
    places: BTreeMap<i32, Pair<Option<Place>>>,
    since: Instant,
    /// Looks that found an older one.
    stuck: u32,
    /// It was asked who they are, and at least one may commit behind the places.
    behind_writer: bool,
}

impl Places {
    /// Begins with places that another consumer has kept.
    pub(super) fn load(kept: impl IntoIterator<Item = KeptPlace>) -> Self {
        let reached = kept.into_iter().take(PRIORITIES_MAX).map(|KeptPlace { priority, place, again }| {
            let places = Pair { published: Some(place), again };
            (priority, Reached { places, last: places, used: 0 })
        });
        let reached: BTreeMap<i32, Reached> = reached.collect();
        // Of several, the places of some may say more than others have seen.
        let ids = reached.values().filter_map(|reached| reached.places.published).map(|(_, id)| id);
        Self { highest: ids.min().unwrap_or_default(), reached, ..Self::default() }
    }

    /// What to keep for the next consumer, once after it has moved over messages.
    pub(super) fn keep(&mut self) -> Vec<KeptPlace> {
        if !std::mem::take(&mut self.worth_keeping) {
            return Vec::new();
        }
        let kept = self.reached.iter().filter_map(|(&priority, reached)| {
            reached.places.published.map(|place| KeptPlace { priority, place, again: reached.places.again })
        });
        kept.collect()
    }

    /// Where the next look that is not to find everything begins.
    pub(super) fn start(&self) -> Start {
        match &self.checkpoint {
            // Nothing can be gained from walking over it before the barrier has passed.
            Some(_) if self.lag > LAG_MAX => Start::Last,
            Some(checkpoint) if checkpoint.behind_writer && checkpoint.since.elapsed() > STUCK_MAX => Start::Last,
            _ => Start::Places,
        }
    }

    /// Whether to ask who may still commit behind the places, which takes the server longer to say: rarely, and the more
    /// rarely the longer they have been where they are.
    pub(super) fn asks_for_writers(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|checkpoint| is_worth_asking(checkpoint.stuck))
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
                ranges.push(priority + 1, above, None, None);
            }
            let Pair { published, again } = match start {
                Start::Places => reached.places,
                Start::Last => reached.last,
                Start::Beginning => Pair::default(),
            };
            ranges.push(priority, priority, published, again);
            open = priority > i32::MIN;
            above = priority.saturating_sub(1);
        }
        if open {
            ranges.push(i32::MIN, above, None, None);
        }
        if lowest_first {
            ranges.reverse();
        }
        Some(ranges)
    }

    /// Learns from a look that was begun at `start`, in the usual order or not. `asked`: for the oldest writer.
    /// `exhausted`: it took all there was.
    pub(super) fn looked(
        &mut self,
        start: Start,
        lowest_first: bool,
        asked: bool,
        exhausted: bool,
        observed: &Observed,
    ) {
        self.looks += 1;
        let exhausted = exhausted && !observed.gated;
        let is_ahead = |at: SystemTime| at.duration_since(observed.now).is_ok_and(|ahead| ahead > OUT_OF_ORDER);
        if self.reached.values().any(|reached| reached.last.published.is_some_and(|(at, _)| is_ahead(at))) {
            // The server's clock was put back, or it is another server: what is new sorts before the places.
            (self.reached, self.checkpoint, self.lag, self.highest) = Default::default();
        }
        // Before anything moves.
        let begun: BTreeSet<i32> = self
            .reached
            .iter()
            .filter(|(_, reached)| reached.is_begun_at(start))
            .map(|(priority, _)| *priority)
            .collect();
        if let Some(checkpoint) = &mut self.checkpoint {
            let barrier = *checkpoint.barrier.get_or_insert(observed.next_xid);
            if observed.oldest_xid >= barrier {
                // This look has seen what was committed late; what it did not get to, it may not have.
                let places = self.checkpoint.take().map(|checkpoint| checkpoint.places).unwrap_or_default();
                if start != Start::Last {
                    self.settle(&places, &begun, lowest_first, exhausted, &observed.met);
                    self.worth_keeping |= self.lag > 0;
                }
                // Else once more, from the places: they would stay where they are for ever.
                self.lag = 0;
            } else {
                checkpoint.stuck += 1;
                checkpoint.behind_writer = asked || checkpoint.behind_writer;
            }
        }
        self.reach(&begun, exhausted, observed);
        self.lag += observed.met.len();
        if self.checkpoint.is_none() && self.reached.values().any(|reached| reached.last != reached.places) {
            let places = self.reached.iter().map(|(priority, reached)| (*priority, reached.last)).collect();
            let since = Instant::now();
            self.checkpoint = Some(Checkpoint { barrier: None, places, since, stuck: 0, behind_writer: false });
        }
    }

    /// Notes where a look ended.
    fn reach(&mut self, begun: &BTreeSet<i32>, exhausted: bool, observed: &Observed) {
        self.highest = observed.met.iter().map(|met| met.place.1).fold(self.highest, MessageId::max);
        // Times of the future were set by hand; a place there would hide everything that follows.
        for taken in observed.met.iter().filter(|taken| taken.place.0 <= observed.now) {
            let reached = self.reached.entry(taken.priority).or_insert_with(|| Reached::new(self.looks));
            reached.used = self.looks;
            match taken.again.filter(|(at, _)| *at <= observed.now) {
                Some(again) if begun.contains(&taken.priority) => {
                    reached.last.again = reached.last.again.max(Some(again));
                }
                _ => reached.last.published = reached.last.published.max(Some(taken.place)),
            }
        }
        while self.reached.len() > PRIORITIES_MAX {
            let oldest = self.reached.iter().min_by_key(|(_, reached)| reached.used).map(|(priority, _)| *priority);
            oldest.map(|priority| self.reached.remove(&priority));
        }
        if exhausted {
            // Everything of before the look, but for what says that it is older than it is.
            let now = Some((observed.now.checked_sub(DATED_BACK).unwrap_or(observed.now), self.highest));
            if self.reached.is_empty() {
                self.reached.insert(0, Reached::new(self.looks));
            }
            for reached in self.reached.values_mut() {
                reached.last.published = reached.last.published.max(now);
                reached.last.again = reached.last.again.max(now);
            }
        }
    }

    /// Moves the places to those of the checkpoint, as far as the look got.
    fn settle(
        &mut self,
        places: &BTreeMap<i32, Pair<Option<Place>>>,
        begun: &BTreeSet<i32>,
        lowest_first: bool,
        exhausted: bool,
        taken: &[Taken],
    ) {
        for (priority, to) in places {
            let Some(reached) = self.reached.get_mut(priority) else { continue };
            let of_it = taken.iter().filter(|taken| taken.priority == *priority);
            if exhausted || !lowest_first && taken.iter().any(|taken| taken.priority < *priority) {
                reached.passed(*to);
            } else if !lowest_first {
                reached.got_to(*to, begun.contains(priority), of_it);
            }
        }
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

/// After so many looks that found an older transaction: the fourth, eighth, sixteenth, …
pub(super) fn is_worth_asking(stuck: u32) -> bool {
    stuck >= STUCK_LOOKS && stuck.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn message(priority: i32, seconds: u64, id: MessageId) -> Taken {
        Taken { priority, place: (at(seconds), id), again: None }
    }

    fn again(priority: i32, seconds: u64, requeued: u64, id: MessageId) -> Taken {
        Taken { again: Some((at(requeued), id)), ..message(priority, seconds, id) }
    }

    fn look(oldest_xid: i64, next_xid: i64, taken: Vec<Taken>) -> Observed {
        Observed::saw(oldest_xid, next_xid, at(10_000), taken)
    }

    fn place(seconds: u64, id: MessageId) -> Option<Place> {
        Some((at(seconds), id))
    }

    /// A look in the usual order, from the places.
    fn looked(places: &mut Places, exhausted: bool, observed: Observed) {
        places.looked(Start::Places, false, false, exhausted, &observed);
    }

    fn of(places: &Places, priority: i32) -> Pair<Option<Place>> {
        places.reached[&priority].places
    }

    #[test]
    fn a_place_moves_when_no_transaction_of_its_time_is_left() {
        let mut places = Places::default();
        assert_eq!(places.ranges(Start::Places, false), None);
        looked(&mut places, false, look(10, 10, vec![message(0, 1, 1), message(0, 2, 2)]));
        // Transaction 11 has been running since before this look: it may still commit something older than message 2.
        looked(&mut places, false, look(11, 12, vec![message(0, 3, 3)]));
        assert_eq!(of(&places, 0).published, None);
        looked(&mut places, false, look(12, 14, vec![message(0, 4, 4)]));
        assert_eq!(of(&places, 0).published, place(2, 2));
        let ranges = places.ranges(Start::Places, false).unwrap();
        assert_eq!(ranges.lows, [1, 0, i32::MIN]);
        assert_eq!(ranges.highs, [i32::MAX, 0, -1]);
        assert_eq!(ranges.after_ids, [0, 2, 0]);
    }

    #[test]
    fn a_look_that_ended_before_a_priority_says_nothing_about_it() {
        let mut places = Places::default();
        looked(&mut places, false, look(10, 10, vec![message(5, 1, 1), message(0, 2, 2)]));
        // Full, and all of it of the higher priority.
        looked(&mut places, false, look(11, 11, vec![message(5, 3, 3)]));
        assert_eq!((of(&places, 5).published, of(&places, 0).published), (place(1, 1), None));
        looked(&mut places, false, look(12, 12, vec![message(5, 4, 4), message(0, 5, 5)]));
        looked(&mut places, false, look(13, 13, vec![message(0, 6, 6)]));
        assert_eq!((of(&places, 5).published, of(&places, 0).published), (place(4, 4), place(5, 5)));
    }

    #[test]
    fn a_look_that_took_all_there_was_moves_the_places_to_shortly_before_its_time_also_where_it_found_nothing() {
        let mut places = Places::default();
        looked(&mut places, true, look(10, 10, vec![]));
        assert_eq!(places.ranges(Start::Places, false).unwrap().after_at, [None, None, None]);
        looked(&mut places, true, look(11, 11, vec![]));
        let now = Some((at(10_000) - DATED_BACK, 0));
        assert_eq!(of(&places, 0), Pair { published: now, again: now });
        assert_eq!(places.keep(), [], "nothing is gained by keeping them");
    }

    #[test]
    fn a_look_that_a_gate_kept_from_looking_moves_nothing() {
        let mut places = Places::default();
        for xid in 10..15 {
            looked(&mut places, true, look(xid, xid, vec![]).gated());
        }
        assert_eq!(places.ranges(Start::Places, false), None);
    }

    #[test]
    fn what_became_pending_again_has_a_place_of_its_own() {
        let mut places = Places::default();
        // In the order of publishing, because there is no place yet.
        looked(&mut places, false, look(10, 10, vec![again(0, 5, 500, 5), message(0, 6, 6)]));
        looked(&mut places, false, look(11, 11, vec![message(0, 7, 7)]));
        assert_eq!(of(&places, 0), Pair { published: place(6, 6), again: None });
        // Full of what became pending again: says nothing of what was published.
        looked(&mut places, false, look(12, 12, vec![again(0, 3, 501, 3), again(0, 1, 502, 1)]));
        looked(&mut places, false, look(13, 13, vec![again(0, 2, 503, 2)]));
        assert_eq!(of(&places, 0), Pair { published: place(6, 6), again: place(502, 1) });
        let ranges = places.ranges(Start::Places, false).unwrap();
        assert_eq!((ranges.after_ids, ranges.again_ids), (vec![0, 6, 0], vec![0, 1, 0]));
        looked(&mut places, false, look(14, 14, vec![message(0, 8, 8)]));
        looked(&mut places, false, look(15, 15, vec![message(0, 9, 9)]));
        assert_eq!(of(&places, 0), Pair { published: place(8, 8), again: place(503, 2) });
    }

    #[test]
    fn behind_a_long_transaction_it_is_asked_who_writes_the_more_rarely_the_longer() {
        let mut places = Places::default();
        looked(&mut places, false, look(10, 20, vec![message(0, 1, 1)]));
        let mut asked = Vec::new();
        for n in 1..40 {
            let asks = places.asks_for_writers();
            if asks {
                asked.push(n);
            }
            places.looked(Start::Places, false, asks, false, &look(10, 20 + n, vec![]));
        }
        assert_eq!(asked, [5, 9, 17, 33]);
        assert!(places.checkpoint.as_ref().unwrap().behind_writer);
        places.looked(Start::Places, false, true, true, &look(60, 60, vec![]));
        assert_eq!(of(&places, 0).published, place(1, 1));
    }

    #[test]
    fn behind_a_long_transaction_looks_begin_where_the_last_one_ended() {
        let mut places = Places::default();
        for n in 0..=LAG_MAX as i64 {
            looked(&mut places, false, look(10, 20 + n, vec![message(0, n as u64, n)]));
        }
        assert_eq!(places.start(), Start::Last);
        let ranges = places.ranges(Start::Last, false).unwrap();
        assert_eq!(ranges.after_ids[1], LAG_MAX as MessageId);
        places.looked(Start::Last, false, false, true, &look(90_000, 90_000, vec![]));
        assert_eq!(places.start(), Start::Places);
    }

    #[test]
    fn ranges_cover_every_priority_once_also_at_the_ends() {
        let mut places = Places::default();
        let seen = [i32::MAX, 7, 6, 0, i32::MIN].map(|priority| message(priority, 1, 1));
        looked(&mut places, true, look(1, 1, seen.to_vec()));
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
        looked(&mut places, false, look(1, 1, vec![message(0, 1, 1), message(0, 20_000, 2)]));
        looked(&mut places, false, look(2, 2, vec![message(0, 3, 3)]));
        assert_eq!(of(&places, 0).published, place(1, 1));
        let put_back = Observed::saw(3, 3, UNIX_EPOCH, vec![]);
        looked(&mut places, false, put_back);
        assert!(places.reached.is_empty());
    }

    #[test]
    fn places_are_worth_keeping_once_they_have_moved_over_messages() {
        let mut places = Places::default();
        looked(&mut places, false, look(1, 1, vec![message(0, 1, 1)]));
        assert_eq!(places.keep(), []);
        looked(&mut places, true, look(2, 2, vec![]));
        assert_eq!(places.keep(), [KeptPlace { priority: 0, place: (at(1), 1), again: None }]);
        looked(&mut places, true, look(3, 3, vec![]));
        assert_eq!(places.keep(), []);
    }

    #[test]
    fn only_so_many_priorities_are_remembered_those_used_last() {
        let mut places = Places::default();
        for priority in 0..20 {
            looked(&mut places, false, look(1, 1, vec![message(priority, 1, 1)]));
        }
        assert_eq!(places.reached.keys().copied().collect::<Vec<_>>(), (12..20).collect::<Vec<_>>());
    }
}
