//! What waits for a free handler: of each ordering key one message at a time, in the order of their ids.
//!
//! A claim takes several messages of a key, its series, so that one round trip is good for more than one. They run one
//! after the other, each when the one before it was done; where one is not, the rest is given back, and waits for it in
//! the table. Those that are handled in the same batch go in together.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::time::Instant;

use super::gathering::{After, Gathering};
use crate::{handler::Batches, message::Delivery, store::Claim};

#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// What may run by itself: without a key, or the next one of its key.
    next: VecDeque<Delivery>,
    /// What may run with others.
    gathering: Gathering,
    /// Keys of which a message may run or runs, with those that come after it.
    after: After,
    /// The keys of messages that run; of a batch, by the first of each key.
    running: HashMap<Claim, String>,
}

/// What one handler is given.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "moved at once; nearly all are of one message, and a box would cost each an allocation"
)]
pub(super) enum Task {
    One(Delivery),
    Several(Vec<Delivery>),
}

impl Lanes {
    pub(super) fn new(batches: Batches) -> Self {
        Self { gathering: Gathering::new(batches), ..Self::default() }
    }

    /// Adds what was claimed, in claiming order: keys in the order of their first messages.
    pub(super) fn push(&mut self, deliveries: Vec<Delivery>) {
        enum Next {
            Free(Box<Delivery>),
            OfKey(String),
        }
        if deliveries.iter().all(|delivery| delivery.ordering_key.is_none()) {
            return self.add(deliveries);
        }
        let mut next = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let Some(key) = delivery.ordering_key.clone() else {
                next.push(Next::Free(Box::new(delivery)));
                continue;
            };
            if !self.after.contains_key(&key) {
                next.push(Next::OfKey(key.clone()));
            }
            self.after.entry(key).or_default().insert(delivery.id, delivery);
        }
        let next = next.into_iter().filter_map(|next| match next {
            Next::Free(delivery) => Some(*delivery),
            Next::OfKey(key) => Some(self.after.get_mut(&key)?.pop_first()?.1),
        });
        let next: Vec<Delivery> = next.collect();
        self.add(next);
    }

    /// Adds what may run.
    fn add(&mut self, deliveries: Vec<Delivery>) {
        let gathering = &mut self.gathering;
        self.next.extend(deliveries.into_iter().filter_map(|delivery| gathering.push(delivery)));
    }

    fn add_first(&mut self, delivery: Delivery) {
        if let Some(delivery) = self.gathering.push_front(delivery) {
            self.next.push_front(delivery);
        }
    }

    /// Takes what may run next.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Task> {
        let first = self.next.front().map(|delivery| delivery.received);
        if let Some((number, since)) = self.gathering.ready(now, &self.after)
            && first.is_none_or(|first| since < first)
        {
            return Some(Task::Several(self.batch(number)));
        }
        let delivery = self.next.pop_front()?;
        if let Some(key) = &delivery.ordering_key {
            self.running.insert(Claim::of(&delivery), key.clone());
        }
        Some(Task::One(delivery))
    }

    /// Takes as many as are handled together, and with each that has a key those that come after it.
    fn batch(&mut self, number: usize) -> Vec<Delivery> {
        let (mut batch, max) = (Vec::new(), self.gathering.max(number));
        while batch.len() < max
            && let Some(delivery) = self.gathering.pop(number)
        {
            let (claim, key) = (Claim::of(&delivery), delivery.ordering_key.clone());
            batch.push(delivery);
            let Some(key) = key else { continue };
            while batch.len() < max
                && let Some(next) = self.after.get_mut(&key).and_then(BTreeMap::first_entry)
                && self.gathering.number(next.get()) == Some(number)
            {
                batch.push(next.remove());
            }
            self.running.insert(claim, key);
        }
        batch
    }

    /// Adds what ran and is to run again, before all others; of a key, all of it that ran and is still here.
    pub(super) fn again(&mut self, deliveries: Vec<Delivery>) {
        // The first of each key that ran: the others of it come after it again.
        let mut first = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match &delivery.ordering_key {
                Some(key) if self.running.remove(&Claim::of(&delivery)).is_none() => {
                    self.after.entry(key.clone()).or_default().insert(delivery.id, delivery);
                }
                _ => first.push(delivery),
            }
        }
        first.into_iter().rev().for_each(|delivery| self.add_first(delivery));
    }

    /// Whether something may run now.
    pub(super) fn has_next(&self, now: Instant) -> bool {
        !self.next.is_empty() || self.gathering.ready(now, &self.after).is_some()
    }

    /// When something may run that may not yet.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.gathering.begins_at()
    }

    /// How many messages wait.
    pub(super) fn len(&self) -> usize {
        self.next.len() + self.gathering.len() + self.after.values().map(BTreeMap::len).sum::<usize>()
    }

    /// A message that ran is done: the next one of its key may run, before all others.
    pub(super) fn next_of_key(&mut self, claim: &Claim) {
        let Some(key) = self.running.remove(claim) else { return };
        let Some(after) = self.after.get_mut(&key) else { return };
        match after.pop_first() {
            Some((_, delivery)) => self.add_first(delivery),
            None => drop(self.after.remove(&key)),
        }
    }

    /// A message that ran is not done. Takes what comes after it of its key.
    pub(super) fn rest_of_key(&mut self, claim: &Claim) -> Vec<Claim> {
        let rest = self.running.remove(claim).and_then(|key| self.after.remove(&key));
        rest.into_iter().flatten().map(|(_, delivery)| Claim::of(&delivery)).collect()
    }

    /// Takes all but so many, the last first; of a key, never one without those that come after it.
    pub(super) fn keep(&mut self, count: usize) -> Vec<Claim> {
        let mut taken = Vec::new();
        while self.len() > count {
            let key = match self.next.pop_back().or_else(|| self.gathering.pop_last()) {
                Some(delivery) => {
                    taken.push(Claim::of(&delivery));
                    delivery.ordering_key
                }
                // What comes after messages that run.
                None => self.after.iter().find(|(_, after)| !after.is_empty()).map(|(key, _)| key.clone()),
            };
            let Some(key) = key else { continue };
            let runs = self.running.values().any(|running| *running == key);
            let Some(after) = self.after.get_mut(&key) else { continue };
            taken.extend(std::mem::take(after).values().map(Claim::of));
            if !runs {
                self.after.remove(&key);
            }
        }
        taken
    }

    /// Drops what is nobody's any more; returns how many messages that were. Takes what comes after them of their keys:
    /// who took them away may have put them back, and then they go before it.
    pub(super) fn drop_gone(&mut self, is_gone: impl Fn(Claim) -> bool) -> (usize, Vec<Claim>) {
        let (gone, next): (VecDeque<_>, _) =
            std::mem::take(&mut self.next).into_iter().partition(|next| is_gone(Claim::of(next)));
        self.next = next;
        let gathered = self.gathering.take(|delivery| is_gone(Claim::of(delivery)));
        let mut count = gone.len() + gathered.len();
        let keys = gone.into_iter().chain(gathered).filter_map(|gone| gone.ordering_key);
        let mut behind: Vec<Delivery> =
            keys.filter_map(|key| self.after.remove(&key)).flat_map(BTreeMap::into_values).collect();
        for after in self.after.values_mut() {
            let first = after.iter().find(|(_, delivery)| is_gone(Claim::of(delivery))).map(|(id, _)| *id);
            behind.extend(first.into_iter().flat_map(|id| after.split_off(&id).into_values()));
        }
        let mut behind: Vec<Claim> = behind.iter().map(Claim::of).collect();
        behind.retain(|claim| {
            let is_gone = is_gone(*claim);
            count += usize::from(is_gone);
            !is_gone
        });
        (count, behind)
    }
}

#[cfg(test)]
#[path = "tests/lanes.rs"]
mod tests;
