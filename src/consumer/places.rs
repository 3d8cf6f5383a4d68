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
#[path = "tests/places.rs"]
mod tests;
