//! What waits to be handled several at a time, for each batch handler, and when a batch begins: when it is full, or one of its
//! messages has waited for as long as they may.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::time::Instant;

use crate::{
    handler::Batches,
    message::{Delivery, MessageId},
};

/// Of each ordering key, the messages that come after one that may run, or runs.
pub(super) type After = HashMap<String, BTreeMap<MessageId, Delivery>>;

#[derive(Debug, Default)]
pub(super) struct Gathering {
    batches: Batches,
    /// Of each batch handler, in claiming order.
    waiting: Vec<VecDeque<Delivery>>,
}

impl Gathering {
    pub(super) fn new(batches: Batches) -> Self {
        let waiting = batches.sizes.iter().map(|_| VecDeque::new()).collect();
        Self { batches, waiting }
    }

    /// The number of the batch handler of a message. `None`: it is handled by itself.
    pub(super) fn number(&self, delivery: &Delivery) -> Option<usize> {
        if self.batches.are_none() || delivery.alone { None } else { self.batches.of(&delivery.record_type) }
    }

    /// Most messages of one batch.
    pub(super) fn max(&self, number: usize) -> usize {
        self.batches.sizes[number].max
    }

    /// Returns what is handled by itself.
    pub(super) fn push(&mut self, delivery: Delivery) -> Option<Delivery> {
        let Some(number) = self.number(&delivery) else { return Some(delivery) };
        self.waiting[number].push_back(delivery);
        None
    }

    /// The same, before all others.
    pub(super) fn push_front(&mut self, delivery: Delivery) -> Option<Delivery> {
        let Some(number) = self.number(&delivery) else { return Some(delivery) };
        self.waiting[number].push_front(delivery);
        None
    }

    /// The batch to begin now, and since when its first message has been here. `after`: what comes along with one of its key.
    pub(super) fn ready(&self, now: Instant, after: &After) -> Option<(usize, Instant)> {
        let ready =
            self.waiting.iter().zip(&self.batches.sizes).enumerate().filter_map(|(number, (waiting, batch))| {
                let first = waiting.front()?.received;
                let begins = first + batch.linger <= now || waiting.len() >= batch.max;
                (begins || with_those_after(waiting, after) >= batch.max).then_some((number, first))
            });
        ready.min_by_key(|(_, first)| *first)
    }

    /// When the next batch begins, full or not.
    pub(super) fn begins_at(&self) -> Option<Instant> {
        let firsts = self.waiting.iter().zip(&self.batches.sizes);
        firsts.filter_map(|(waiting, batch)| Some(waiting.front()?.received + batch.linger)).min()
    }

    pub(super) fn pop(&mut self, number: usize) -> Option<Delivery> {
        self.waiting[number].pop_front()
    }

    /// The last one of any.
    pub(super) fn pop_last(&mut self) -> Option<Delivery> {
        self.waiting.iter_mut().rev().find_map(VecDeque::pop_back)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// Takes those of which that is so.
    pub(super) fn take(&mut self, which: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let mut taken = Vec::new();
        for waiting in &mut self.waiting {
            let (matching, rest): (VecDeque<_>, VecDeque<_>) = std::mem::take(waiting).into_iter().partition(&which);
            taken.extend(matching);
            *waiting = rest;
        }
        taken
    }
}

fn with_those_after(waiting: &VecDeque<Delivery>, after: &After) -> usize {
    let of = |delivery: &Delivery| Some(after.get(delivery.ordering_key.as_ref()?)?.len());
    let along: usize = if after.is_empty() { 0 } else { waiting.iter().filter_map(of).sum() };
    waiting.len() + along
}

#[cfg(test)]
#[path = "tests/gathering.rs"]
mod tests;
