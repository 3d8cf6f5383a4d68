//! The messages that this consumer has leased and not ended: those that wait for a free handler, and those that run.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::{sync::OwnedSemaphorePermit, task::AbortHandle, time::Instant};

use super::{
    config::ConsumerConfig,
    lanes::{Lanes, Task},
    running::{Begun, GRACE},
};
use crate::{handler::Batches, message::Delivery, store::Claim};

/// Handlers faster than this on average are worth claiming ahead for: as many as they handle in so long, within limits.
const PREFETCH_BELOW: Duration = Duration::from_millis(50);
const PREFETCH_WORTH: Duration = Duration::from_millis(20);
const PREFETCH_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Workers {
    concurrency: usize,
    /// `None`: by the average.
    prefetch: Option<usize>,
    /// Most messages of a batch; 0: there are none.
    batch_max: usize,
    queue: Lanes,
    /// Tasks, by their first messages.
    running: HashMap<Claim, Running>,
    /// The messages that run beside the first of each task.
    others: usize,
    /// How long a task takes, the last ones counting most.
    average: Duration,
}

#[derive(Debug)]
struct Running {
    begun: Begun,
    abort: AbortHandle,
    /// All its messages, where it may have several.
    batch: Vec<Delivery>,
    /// Those of them that are nobody's any more.
    gone: HashSet<Claim>,
    /// Its place among the handlers that run at a time: free when it has ended, or is given up.
    _slot: Option<OwnedSemaphorePermit>,
}

/// A message of a batch that has ended.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) delivery: Delivery,
    /// It is nobody's any more.
    pub(super) gone: bool,
}

impl Workers {
    pub(super) fn new(config: &ConsumerConfig, batches: &Batches) -> Self {
        Self {
            concurrency: config.concurrency,
            prefetch: config.prefetch,
            batch_max: batches.largest(),
            queue: Lanes::new(batches.clone()),
            running: HashMap::new(),
            others: 0,
            average: PREFETCH_BELOW,
        }
    }

    /// How many messages to claim, beside so many that are not settled yet. `None`: no batch is worthwhile, for lack of
    /// free handlers or of half the capacity.
    pub(super) fn room(&self, unsettled: usize) -> Option<usize> {
        let mine = self.queue.len() + self.running.len() + self.others + unsettled;
        let capacity = self.capacity();
        let room = (mine < capacity && (self.have_room() || mine <= capacity / 2)).then(|| capacity - mine);
        // Beginning one batch goes before claiming for the others.
        if self.batch_max > 0 { room.map(|room| room.min(self.batch_max.max(PREFETCH_MAX))) } else { room }
    }

    /// Most messages this consumer may have: running, waiting to run, waiting to be settled.
    fn capacity(&self) -> usize {
        if self.batch_max > 0 {
            return self.concurrency.saturating_mul(self.batch_max).saturating_add(self.prefetch.unwrap_or(0));
        }
        let prefetch = self.prefetch.unwrap_or_else(|| match self.average {
            average if average >= PREFETCH_BELOW => 0,
            average => {
                let worth = (PREFETCH_WORTH.as_nanos() / average.as_nanos().max(1)) as usize;
                worth.saturating_mul(self.concurrency).clamp(self.concurrency, self.concurrency.max(PREFETCH_MAX))
            }
        });
        self.concurrency + prefetch
    }

    pub(super) fn queue(&mut self, deliveries: Vec<Delivery>) {
        self.queue.push(deliveries);
    }

    /// Most messages of one key to claim: what one handler does in 20 ms, one after the other.
    pub(super) fn series(&self) -> usize {
        if self.batch_max > 0 {
            return self.batch_max;
        }
        if self.average >= PREFETCH_BELOW {
            return 1;
        }
        ((PREFETCH_WORTH.as_nanos() / self.average.as_nanos().max(1)) as usize).clamp(1, PREFETCH_MAX)
    }

    /// A message is done: the next one of its key may run.
    pub(super) fn next_of_key(&mut self, claim: &Claim) {
        self.queue.next_of_key(claim);
    }

    /// A message was not done: what comes after it of its key is to be given back.
    pub(super) fn rest_of_key(&mut self, claim: &Claim) -> Vec<Claim> {
        self.queue.rest_of_key(claim)
    }

    /// Messages of a batch that has ended are to run once more.
    pub(super) fn again(&mut self, deliveries: Vec<Delivery>) {
        self.queue.again(deliveries);
    }

    /// The next task, while there is a free handler.
    pub(super) fn next_task(&mut self) -> Option<Task> {
        if self.running.len() < self.concurrency { self.queue.pop(Instant::now()) } else { None }
    }

    /// When there is a next task, where there is none now.
    pub(super) fn next_task_at(&self) -> Option<Instant> {
        if self.running.len() < self.concurrency { self.queue.next_at() } else { None }
    }

    /// Its task runs.
    pub(super) fn started(
        &mut self,
        claim: Claim,
        begun: &Begun,
        abort: &AbortHandle,
        slot: Option<OwnedSemaphorePermit>,
    ) {
        self.started_with(claim, Vec::new(), begun, abort, slot);
    }

    /// The same, of several messages; `claim` is that of the first.
    pub(super) fn started_with(
        &mut self,
        claim: Claim,
        batch: Vec<Delivery>,
        begun: &Begun,
        abort: &AbortHandle,
        slot: Option<OwnedSemaphorePermit>,
    ) {
        self.others += batch.len().saturating_sub(1);
        let (begun, abort) = (begun.clone(), abort.clone());
        self.running.insert(claim, Running { begun, abort, batch, gone: HashSet::new(), _slot: slot });
    }

    /// Whether a handler is free, and no message waits for it.
    pub(super) fn have_room(&self) -> bool {
        !self.are_waited_for() && self.running.len() < self.concurrency
    }

    /// Whether messages wait for a free handler.
    pub(super) fn are_waited_for(&self) -> bool {
        self.queue.has_next(Instant::now())
    }

    /// A task has ended. False: its message does not run any more, it was given up, or its lease was lost.
    pub(super) fn ended(&mut self, claim: &Claim, took: Duration) -> bool {
        self.ended_with(claim, took).is_some()
    }

    /// The same, of several messages; returns them.
    pub(super) fn ended_with(&mut self, claim: &Claim, took: Duration) -> Option<Vec<Item>> {
        let running = self.running.remove(claim)?;
        self.average = (self.average * 7 + took) / 8;
        Some(self.items(running))
    }

    fn items(&mut self, Running { batch, gone, .. }: Running) -> Vec<Item> {
        self.others -= batch.len().saturating_sub(1);
        let item = |delivery: Delivery| Item { gone: gone.contains(&Claim::of(&delivery)), delivery };
        batch.into_iter().map(item).collect()
    }

    /// What was claimed ahead and should not have been: handlers turned out to be slower than they were.
    pub(super) fn surplus(&mut self) -> Vec<Claim> {
        let keep = self.capacity().saturating_sub(self.running.len() + self.others);
        // Not for small changes: each costs a statement, an attempt, and its place in the queue.
        if self.average < PREFETCH_BELOW || self.queue.len() <= keep {
            return Vec::new();
        }
        self.queue.keep(keep)
    }

    /// So many handlers of held messages took so long together.
    pub(super) fn were_held(&mut self, handlers: u32, took: Duration) {
        // As many as the average looks back to, or as there were.
        for _ in 0..handlers.min(8) {
            self.average = (self.average * 7 + took / handlers) / 8;
        }
    }

    /// Handlers that have all been running for long say as much as one that has ended.
    pub(super) fn notice_slow(&mut self, now: Instant) {
        if self.running.len() >= self.concurrency {
            let youngest = self.running.values().filter_map(|running| running.begun.at()).max();
            self.average = self.average.max(youngest.map_or(Duration::ZERO, |begun| now - begun));
        }
    }

    /// Gives up those that the limit of a handler did not stop because they never yield. With a batch come its messages.
    pub(super) fn overdue(&mut self, limit: Duration, now: Instant) -> Vec<(Claim, Vec<Item>)> {
        let is_overdue = |running: &Running| running.begun.at().is_some_and(|begun| now - begun > limit + GRACE);
        let overdue = self.running.iter().filter(|(_, running)| is_overdue(running));
        let overdue: Vec<Claim> = overdue.map(|(claim, _)| *claim).collect();
        overdue.into_iter().filter_map(|claim| Some((claim, self.give_up(&claim)?))).collect()
    }

    /// Drops what is gone; returns how many messages had not started, how many ran, and what is to be given back because
    /// it comes after them. A batch goes on for the sake of the others.
    pub(super) fn drop_gone(&mut self, is_gone: impl Fn(Claim) -> bool) -> (usize, usize, Vec<Claim>) {
        let (unstarted, mut behind) = self.queue.drop_gone(&is_gone);
        let (mut stopped, mut given_up) = (0, Vec::new());
        for (claim, running) in &mut self.running {
            let Running { batch, gone, .. } = running;
            let before = gone.len();
            gone.extend(batch.iter().map(Claim::of).filter(|claim| is_gone(*claim)));
            stopped += gone.len() - before;
            if batch.is_empty() && is_gone(*claim) {
                stopped += 1;
                given_up.push(*claim);
            } else if !batch.is_empty() && gone.len() == batch.len() {
                given_up.push(*claim);
            }
        }
        for claim in given_up {
            let batch = self.give_up(&claim).unwrap_or_default();
            behind.extend(self.rest_of_key(&claim));
            for item in &batch {
                behind.extend(self.rest_of_key(&Claim::of(&item.delivery)));
            }
        }
        (unstarted, stopped, behind)
    }

    /// Stops its task. Returns the messages of a batch.
    fn give_up(&mut self, claim: &Claim) -> Option<Vec<Item>> {
        let running = self.running.remove(claim)?;
        running.abort.abort();
        Some(self.items(running))
    }

    /// How many messages run.
    pub(super) fn running(&self) -> usize {
        self.running.len() + self.others
    }

    /// Takes what has not started.
    pub(super) fn take_unstarted(&mut self) -> Vec<Claim> {
        self.queue.keep(0)
    }

    /// Stops what runs.
    pub(super) fn stop(&mut self) -> Vec<Claim> {
        let tasks: Vec<Claim> = self.running.keys().copied().collect();
        let mut stopped = Vec::with_capacity(tasks.len());
        for task in tasks {
            let batch = self.give_up(&task).unwrap_or_default();
            if batch.is_empty() {
                stopped.push(task);
            }
            stopped.extend(batch.iter().filter(|item| !item.gone).map(|item| Claim::of(&item.delivery)));
            self.queue.next_of_key(&task);
            batch.iter().for_each(|item| self.queue.next_of_key(&Claim::of(&item.delivery)));
        }
        stopped
    }
}

#[cfg(test)]
#[path = "tests/workers.rs"]
pub(super) mod tests;
