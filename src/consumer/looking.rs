//! Why, where and when to look into the table.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    observed::Observed,
    places::{Places, is_worth_asking},
    reached::Start,
    turn::TurnedAway,
};
use crate::{
    error::Error,
    message::Found,
    outage::Outage,
    store::{KeptPlace, Ranges},
};

const RETRY_BASE: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// Every so many full batches, one look begins with the lowest priority, so that none starves.
const LOWEST_FIRST_EVERY: u32 = 16;

/// The only owner of the reason to look.
#[derive(Debug)]
pub(super) struct Looking {
    /// Why to look again, if at all.
    why: Option<Found>,
    /// When to look from the beginning, without another reason.
    everywhere_at: Option<Instant>,
    /// The target had a limit of messages in flight at the last look.
    limited: bool,
    /// It has had messages with keys: where one ends, the next of its key may be taken.
    keyed: bool,
    outage: Outage,
    /// How long the next look waits, after one that failed.
    pause: Option<Duration>,
    /// It was turned away. In a box: most have their turn at once.
    turned_away: Option<Box<TurnedAway>>,
    way: Way,
    /// Looks since parking waits for a transaction to end.
    unsettled: u32,
}

/// The way through the queue.
#[derive(Debug, Default)]
struct Way {
    places: Places,
    /// The next look begins at the beginning.
    everywhere: bool,
    /// Full batches in a row.
    full_batches: u32,
}

/// What the next look is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextLook {
    /// Any message, to be leased: the mode is off, or not on yet.
    Leased,
    /// Messages to be held.
    Held,
    /// Any message, to be leased, so many: the target does not allow to hold, or a batch was rolled back and had so
    /// many.
    Refused(usize),
}

/// One look. It comes back with what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    why: Found,
    next: NextLook,
    start: Start,
    lowest_first: bool,
    /// It asks for the oldest writer, in place of the oldest transaction.
    asks: bool,
}

impl Look {
    pub(super) fn why(&self) -> Found {
        self.why
    }

    /// What it is for.
    pub(super) fn next(&self) -> NextLook {
        self.next
    }

    /// Whether it misses nothing that is there.
    pub(super) fn is_everywhere(&self) -> bool {
        self.start == Start::Beginning
    }

    #[cfg(test)]
    pub(super) fn for_a_bell(next: NextLook, start: Start) -> Self {
        Self { why: Found::Bell, next, start, lowest_first: false, asks: false }
    }
}

/// A look that took all there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted {
    /// Nothing at all was found.
    pub(super) nothing: bool,
    pub(super) why: Found,
    /// It began at the beginning.
    pub(super) everywhere: bool,
    /// The oldest transaction running before the look.
    pub(super) oldest_xid: i64,
}

impl Exhausted {
    pub(super) fn new(look: &Look, observed: &Observed) -> Self {
        let (nothing, oldest_xid) = (observed.took() == 0, observed.oldest_xid);
        Self { nothing, why: look.why, everywhere: look.is_everywhere(), oldest_xid }
    }

    /// Whether suspects are worth a look now. Also at the last one before parking: a rescue may have found nobody
    /// parked to ring for.
    pub(super) fn suspects_may_wait(&self) -> bool {
        self.nothing && (self.why != Found::Drain || self.everywhere)
    }
}

impl Looking {
    /// Begins with the places that another consumer of the target has kept.
    pub(super) fn new(target: &str, places: Places) -> Self {
        let outage = Outage::new("claiming failed; trying again until it works", "claiming again");
        Self {
            // Register before looking, then look: what was there before the bell hung must be found.
            why: Some(Found::Sweep),
            everywhere_at: None,
            limited: false,
            keyed: false,
            outage: outage.for_target(target).pauses(RETRY_BASE, RETRY_CAP),
            pause: None,
            turned_away: None,
            way: Way { places, ..Way::default() },
            unsettled: 0,
        }
    }

    /// There is a reason to look.
    pub(super) fn look(&mut self, why: Found) {
        self.why = Some(why);
        if why == Found::Bell {
            // All who are turned away may be pausing.
            self.come_back();
        }
    }

    /// The same, where another reason goes before.
    pub(super) fn also_look(&mut self, why: Found) {
        self.why = self.why.or(Some(why));
    }

    /// Looks at everything that there is next.
    pub(super) fn look_everywhere(&mut self, why: Found) {
        self.also_look(why);
        self.way.everywhere = true;
        self.everywhere_at = None;
    }

    /// The same, as soon as such a look costs little of the time.
    pub(super) fn look_everywhere_soon(&mut self, now: Instant) {
        self.everywhere_at = Some(now + self.everywhere_in());
    }

    /// What a look took is free again, perhaps behind where looks begin now.
    pub(super) fn look_again(&mut self, why: Found) {
        self.look(why);
        self.way.everywhere = true;
    }

    /// A message of the target has left. If that has a limit, there is room again, and if it has keys, another may be next;
    /// there is no bell for it.
    pub(super) fn room_again(&mut self) {
        if self.limited || self.keyed {
            self.also_look(Found::Drain);
        }
    }

    /// After anything that may have been a failover: where it went on, the same ids may be other messages.
    pub(super) fn forget_places(&mut self) {
        self.way.places = Places::default();
    }

    /// Under a new owner.
    pub(super) fn start_over(&mut self) {
        (self.pause, self.turned_away) = (None, None);
        self.forget_places();
        self.look(Found::Sweep);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.why.is_some()
    }

    /// When the look that is wanted may claim, after it was turned away; `None`: now.
    pub(super) fn back_at(&self) -> Option<Instant> {
        self.turned_away.as_ref().and_then(|turned_away| turned_away.back_at())
    }

    /// It may now.
    pub(super) fn come_back(&mut self) {
        if let Some(turned_away) = &mut self.turned_away {
            turned_away.come_back();
        }
    }

    /// Whom it saw having the turn when it asked last, where the look that begins is to ask.
    pub(super) fn asks_for_turn(&self, now: Instant) -> Option<String> {
        self.turned_away.as_ref().and_then(|turned_away| turned_away.asks(now))
    }

    /// When to look from the beginning, if nothing comes before.
    pub(super) fn everywhere_at(&self) -> Option<Instant> {
        self.everywhere_at
    }

    /// How long a look from the beginning should wait, so that such looks take little of the time.
    pub(super) fn everywhere_in(&self) -> Duration {
        self.way.places.full_in()
    }

    /// How long the look that has begun is to wait.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        self.pause.take()
    }

    /// Begins a look, where there is a reason, and says where: `None`, everything, in the usual order. `settling`: it
    /// must not miss late commits.
    pub(super) fn begin(&mut self, next: NextLook, settling: bool) -> Option<(Look, Option<Ranges>)> {
        let why = self.why.take()?;
        self.unsettled = if settling { self.unsettled.saturating_add(1) } else { 0 };
        let parking_asks = is_worth_asking(self.unsettled);
        let way = &mut self.way;
        let start = match way.places.start() {
            _ if std::mem::take(&mut way.everywhere) => Start::Beginning,
            Start::Last if settling => Start::Places,
            start => start,
        };
        let lowest_first = way.full_batches >= LOWEST_FIRST_EVERY;
        let asks = parking_asks || way.places.asks_for_writers();
        let mut ranges = way.places.ranges(start, lowest_first);
        let start = if ranges.is_none() { Start::Beginning } else { start };
        if asks {
            ranges.get_or_insert_default().writers = true;
        }
        Some((Look { why, next, start, lowest_first, asks }, ranges))
    }

    /// Learns what a look saw. `full`: there may be more, and it is looked for.
    pub(super) fn looked(&mut self, look: &Look, observed: &Observed, full: bool, took: Duration) {
        self.outage.over();
        self.turned_away = None;
        self.limited = observed.is_limited();
        self.keyed |= observed.is_keyed();
        let way = &mut self.way;
        way.places.looked(look.start, look.lowest_first, look.asks, !full, observed);
        if look.is_everywhere() {
            way.places.looked_everywhere(took);
        }
        way.full_batches = if full && !look.lowest_first { way.full_batches + 1 } else { 0 };
        if full {
            self.look(Found::Drain);
        }
    }

    /// It was not its turn, and nothing was looked at: once more, later. `holder`: who has the turn, where that is known.
    pub(super) fn turned_away(&mut self, look: &Look, holder: String, now: Instant, random: f64) {
        self.outage.over();
        // Whoever waits in its place may have looked before the bell.
        let rung = self.why == Some(Found::Bell);
        let turned_away = self.turned_away.get_or_insert_with(|| Box::new(TurnedAway::new(now)));
        turned_away.again(holder, rung, now, random);
        self.also_look(look.why);
        self.way.everywhere |= look.is_everywhere();
        self.unsettled = self.unsettled.saturating_sub(1);
    }

    /// A look failed: once more.
    pub(super) fn failed(&mut self, look: &Look, error: &Error) {
        self.turned_away = None;
        self.pause = Some(self.outage.failed(error));
        // It may be another server when it is back.
        self.forget_places();
        self.look(look.why);
    }

    /// The places that the next consumer is to begin with, where those that the database has are worse.
    pub(super) fn keep(&mut self) -> Option<Vec<KeptPlace>> {
        Some(self.way.places.keep()).filter(|places| !places.is_empty())
    }
}

#[cfg(test)]
#[path = "tests/looking.rs"]
mod tests;
