//! The messages that this consumer has leased and not ended: those that wait for a free handler, and those that run.

use std::{collections::HashMap, time::Duration};

use tokio::{sync::OwnedSemaphorePermit, task::AbortHandle, time::Instant};

use super::{
    config::ConsumerConfig,
    lanes::Lanes,
    running::{Begun, GRACE},
};
use crate::{message::Delivery, store::Claim};

/// Handlers faster than this on average are worth claiming ahead for: as many as they handle in so long, within limits.
const PREFETCH_BELOW: Duration = Duration::from_millis(50);
const PREFETCH_WORTH: Duration = Duration::from_millis(20);
const PREFETCH_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Workers {
    concurrency: usize,
    /// `None`: by the average.
    prefetch: Option<usize>,
    queue: Lanes,
    running: HashMap<Claim, Running>,
    /// How long a task takes, the last ones counting most.
    average: Duration,
}

#[derive(Debug)]
struct Running {
    begun: Begun,
    abort: AbortHandle,
    /// Its place among the handlers that run at a time: free when it has ended, or is given up.
    _slot: Option<OwnedSemaphorePermit>,
}

impl Workers {
    pub(super) fn new(config: &ConsumerConfig) -> Self {
        Self {
            concurrency: config.concurrency,
            prefetch: config.prefetch,
            queue: Lanes::default(),
            running: HashMap::new(),
            average: PREFETCH_BELOW,
        }
    }

    /// How many messages to claim, beside so many that are not settled yet. `None`: no batch is worthwhile, for lack of
    /// free handlers or of half the capacity.
    pub(super) fn room(&self, unsettled: usize) -> Option<usize> {
        let mine = self.queue.len() + self.running.len() + unsettled;
        let capacity = self.capacity();
        (mine < capacity && (self.have_room() || mine <= capacity / 2)).then(|| capacity - mine)
    }

    /// Most messages this consumer may have: running, waiting to run, waiting to be settled.
    fn capacity(&self) -> usize {
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

    /// The message of the next task, while there is a free handler.
    pub(super) fn next_task(&mut self) -> Option<Delivery> {
        if self.running.len() < self.concurrency { self.queue.pop() } else { None }
    }

    /// Its task runs.
    pub(super) fn started(
        &mut self,
        claim: Claim,
        begun: &Begun,
        abort: &AbortHandle,
        slot: Option<OwnedSemaphorePermit>,
    ) {
        self.running.insert(claim, Running { begun: begun.clone(), abort: abort.clone(), _slot: slot });
    }

    /// Whether a handler is free, and no message waits for it.
    pub(super) fn have_room(&self) -> bool {
        !self.queue.has_next() && self.running.len() < self.concurrency
    }

    /// Whether messages wait for a free handler.
    pub(super) fn are_waited_for(&self) -> bool {
        self.queue.has_next()
    }

    /// A task has ended. False: its message does not run any more, it was given up, or its lease was lost.
    pub(super) fn ended(&mut self, claim: &Claim, took: Duration) -> bool {
        let was_running = self.running.remove(claim).is_some();
        if was_running {
            self.average = (self.average * 7 + took) / 8;
        }
        was_running
    }

    /// What was claimed ahead and should not have been: handlers turned out to be slower than they were.
    pub(super) fn surplus(&mut self) -> Vec<Claim> {
        let keep = self.capacity().saturating_sub(self.running.len());
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

    /// Gives up those that the limit of a handler did not stop because they never yield.
    pub(super) fn overdue(&mut self, limit: Duration, now: Instant) -> Vec<Claim> {
        let is_overdue = |running: &Running| running.begun.at().is_some_and(|begun| now - begun > limit + GRACE);
        let overdue = self.running.iter().filter(|(_, running)| is_overdue(running));
        let overdue: Vec<Claim> = overdue.map(|(claim, _)| *claim).collect();
        for claim in &overdue {
            self.give_up(claim);
        }
        overdue
    }

    /// Drops what is gone; returns how many messages had not started, how many ran, and what is to be given back because
    /// it comes after them.
    pub(super) fn drop_gone(&mut self, is_gone: impl Fn(Claim) -> bool) -> (usize, usize, Vec<Claim>) {
        let (unstarted, mut behind) = self.queue.drop_gone(&is_gone);
        let stopped: Vec<Claim> = self.running.keys().copied().filter(|claim| is_gone(*claim)).collect();
        for claim in &stopped {
            self.give_up(claim);
            behind.extend(self.rest_of_key(claim));
        }
        (unstarted, stopped.len(), behind)
    }

    /// Stops its task.
    fn give_up(&mut self, claim: &Claim) {
        if let Some(running) = self.running.remove(claim) {
            running.abort.abort();
        }
    }

    /// How many messages run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Takes what has not started.
    pub(super) fn take_unstarted(&mut self) -> Vec<Claim> {
        self.queue.keep(0)
    }

    /// Stops what runs.
    pub(super) fn stop(&mut self) -> Vec<Claim> {
        let stopped = self.running.drain().map(|(claim, running)| {
            running.abort.abort();
            self.queue.next_of_key(&claim);
            claim
        });
        stopped.collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::message::Found;

    pub(in crate::consumer) fn delivery(id: i64) -> Delivery {
        Delivery {
            id,
            attempt: 1,
            source: "shop".to_owned(),
            target: "billing".to_owned(),
            record_type: "order".to_owned(),
            priority: 0,
            retry_count: 0,
            redrive_count: 0,
            headers: Default::default(),
            ordering_key: None,
            created_at: std::time::SystemTime::UNIX_EPOCH,
            age: Duration::ZERO,
            found: Found::Bell,
            requeued_at: None,
            canary: false,
            ahead: false,
            received: Instant::now(),
            owner: "me".into(),
            payload: "{}".into(),
            unreadable: None,
        }
    }

    pub(in crate::consumer) fn claim(id: i64) -> Claim {
        Claim::of(&delivery(id))
    }

    fn workers(concurrency: usize) -> Workers {
        Workers::new(&ConsumerConfig { concurrency, ..ConsumerConfig::default() })
    }

    /// Starts tasks as long as there are free handlers.
    fn start(workers: &mut Workers) -> Vec<tokio::task::JoinHandle<()>> {
        let mut tasks = Vec::new();
        while let Some(delivery) = workers.next_task() {
            let task = tokio::spawn(std::future::pending());
            let begun = Begun::default();
            begun.now();
            workers.started(Claim::of(&delivery), &begun, &task.abort_handle(), None);
            tasks.push(task);
        }
        tasks
    }

    fn end(workers: &mut Workers, id: i64, took: Duration) -> bool {
        workers.ended(&claim(id), took)
    }

    #[tokio::test]
    async fn a_task_has_one_message_and_there_are_as_many_as_free_handlers() {
        let mut workers = workers(2);
        workers.queue((0..8).map(delivery).collect());
        assert_eq!(start(&mut workers).len(), 2);
        assert!(workers.next_task().is_none(), "no free handler");
        assert!(end(&mut workers, 0, Duration::ZERO) && !end(&mut workers, 0, Duration::ZERO));
        assert_eq!(start(&mut workers).len(), 1);
    }

    #[tokio::test]
    async fn room_is_for_free_handlers_or_for_half_the_capacity() {
        let mut workers = workers(4);
        assert_eq!(workers.room(0), Some(4), "no claiming ahead before a handler was seen to be fast");
        assert_eq!(workers.room(3), Some(1));
        assert_eq!(workers.room(4), None);
        workers.queue((0..4).map(delivery).collect());
        start(&mut workers);
        assert_eq!(workers.room(0), None);
        for id in 0..4 {
            (0..30).for_each(|_| workers.average = (workers.average * 7) / 8);
            end(&mut workers, id, Duration::from_millis(1));
        }
        let capacity = workers.room(0).unwrap();
        assert!((4 + 4..=4 + PREFETCH_MAX).contains(&capacity), "{capacity}");
        workers.queue((0..capacity as i64 / 2 + 2).map(delivery).collect());
        start(&mut workers);
        assert_eq!(workers.room(0), None, "more than half of it is there, and every handler is busy");
    }

    #[tokio::test]
    async fn what_was_claimed_ahead_of_handlers_that_became_slow_is_surplus() {
        let mut workers = workers(2);
        workers.queue((0..6).map(delivery).collect());
        start(&mut workers);
        workers.average = Duration::from_millis(1);
        assert_eq!(workers.surplus(), []);
        workers.notice_slow(Instant::now() + Duration::from_secs(1));
        assert_eq!(workers.surplus(), [5, 4, 3, 2].map(claim));
        assert_eq!(workers.surplus(), []);
    }

    #[tokio::test]
    async fn the_overdue_are_given_up_and_free_their_places() {
        let mut workers = workers(2);
        workers.queue((0..4).map(delivery).collect());
        let tasks = start(&mut workers);
        let limit = Duration::from_secs(1);
        let now = Instant::now();
        assert_eq!(workers.overdue(limit, now + limit), [], "they may stop late");
        let mut overdue = workers.overdue(limit, now + limit + GRACE + limit);
        overdue.sort_by_key(|claim| claim.id());
        assert_eq!(overdue, [claim(0), claim(1)]);
        for task in tasks {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert!(!end(&mut workers, 0, Duration::ZERO), "what it says in the end comes too late");
        assert_eq!(start(&mut workers).len(), 2);
    }

    #[tokio::test]
    async fn what_is_gone_is_dropped_and_others_go_on() {
        let mut workers = workers(4);
        workers.queue((0..6).map(delivery).collect());
        let mut tasks = start(&mut workers).into_iter();
        assert_eq!(workers.drop_gone(|claim| [0, 2, 4].contains(&claim.id())), (1, 2, vec![]));
        let (first, second) = (tasks.next().unwrap(), tasks.next().unwrap());
        assert!(first.await.unwrap_err().is_cancelled());
        assert!(!second.is_finished());
        assert!(!end(&mut workers, 0, Duration::ZERO) && end(&mut workers, 1, Duration::ZERO));
        assert_eq!((workers.running(), start(&mut workers).len()), (1, 1));
    }

    #[tokio::test]
    async fn a_task_that_waits_for_its_turn_is_not_overdue() {
        let mut workers = workers(1);
        let task = tokio::spawn(std::future::pending::<()>());
        workers.started(claim(1), &Begun::default(), &task.abort_handle(), None);
        assert_eq!(workers.overdue(Duration::ZERO, Instant::now() + Duration::from_secs(3600)), []);
    }

    #[tokio::test]
    async fn stopping_takes_what_runs_and_leaves_what_waits() {
        let mut workers = workers(1);
        workers.queue(vec![delivery(1), delivery(2)]);
        let tasks = start(&mut workers);
        assert_eq!((workers.stop(), workers.take_unstarted()), (vec![claim(1)], vec![claim(2)]));
        for task in tasks {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!((workers.running(), end(&mut workers, 1, Duration::ZERO)), (0, false));
    }
}
