//! The messages that this consumer has leased and not ended: those that wait for a free handler, and those that run.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

use super::{
    config::ConsumerConfig,
    running::{Begun, GRACE, Ran},
};
use crate::{message::Delivery, store::Claim};

/// Handlers faster than this on average are worth claiming ahead for: as many as they handle in so long, within limits.
const PREFETCH_BELOW: Duration = Duration::from_millis(50);
const PREFETCH_WORTH: Duration = Duration::from_millis(20);
const PREFETCH_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Workers {
    concurrency: usize,
    tx_batch: usize,
    /// How many messages the task that started last may have: what a transaction takes is no measure for plain handlers.
    per_task: usize,
    /// `None`: by the average.
    prefetch: Option<usize>,
    queue: VecDeque<Delivery>,
    running: HashMap<Claim, Running>,
    /// Tasks that have not ended.
    tasks: usize,
    /// How long a task takes, the last ones counting most.
    average: Duration,
}

#[derive(Debug)]
struct Running {
    begun: Begun,
    abort: AbortHandle,
    /// How many messages its task runs, one after the other.
    together: usize,
}

impl Workers {
    pub(super) fn new(config: &ConsumerConfig) -> Self {
        Self {
            concurrency: config.concurrency,
            tx_batch: config.tx_batch,
            per_task: 1,
            prefetch: config.prefetch,
            queue: VecDeque::new(),
            running: HashMap::new(),
            tasks: 0,
            average: PREFETCH_BELOW,
        }
    }

    /// How many messages to claim, beside so many that are not settled yet. `None`: no batch is worthwhile, for lack of
    /// free handlers or of half the capacity.
    pub(super) fn room(&self, unsettled: usize) -> Option<usize> {
        let mine = self.queue.len() + self.running.len() + unsettled;
        let capacity = self.capacity();
        let idle_handlers = self.queue.is_empty() && self.tasks < self.concurrency;
        (mine < capacity && (idle_handlers || mine <= capacity / 2)).then(|| capacity - mine)
    }

    /// Most messages this consumer may have: running, waiting to run, waiting to be settled.
    fn capacity(&self) -> usize {
        let prefetch = self.prefetch.unwrap_or_else(|| match self.average {
            average if average >= PREFETCH_BELOW => 0,
            average => {
                let worth = (PREFETCH_WORTH.as_nanos() / average.as_nanos().max(1)) as usize;
                let most = self.concurrency.max(PREFETCH_MAX / self.per_task);
                worth.saturating_mul(self.concurrency).clamp(self.concurrency, most)
            }
        });
        (self.concurrency + prefetch) * self.per_task
    }

    pub(super) fn queue(&mut self, deliveries: Vec<Delivery>) {
        self.queue.extend(deliveries);
    }

    /// The messages of the next task, while there is a free handler: one, or several for transactional handlers.
    pub(super) fn next_task(&mut self, in_tx: impl Fn(&Delivery) -> bool) -> Option<Vec<Delivery>> {
        if self.tasks >= self.concurrency {
            return None;
        }
        let first = self.queue.pop_front()?;
        self.per_task = if in_tx(&first) { self.tx_batch } else { 1 };
        let mut deliveries = vec![first];
        while deliveries.len() < self.per_task && self.queue.front().is_some_and(&in_tx) {
            deliveries.extend(self.queue.pop_front());
        }
        Some(deliveries)
    }

    /// Their task runs.
    pub(super) fn started(&mut self, claims: &[Claim], begun: &Begun, abort: &AbortHandle) {
        self.tasks += 1;
        for claim in claims {
            let running = Running { begun: begun.clone(), abort: abort.clone(), together: claims.len() };
            self.running.insert(*claim, running);
        }
    }

    /// A task has ended. Takes out of it what does not run any more: given up, or its lease was lost.
    pub(super) fn ended(&mut self, ran: &mut Vec<(Claim, Ran)>, took: Duration) {
        ran.retain(|(claim, _)| self.running.remove(claim).is_some());
        if !ran.is_empty() {
            self.tasks -= 1;
            self.average = (self.average * 7 + took) / 8;
        }
    }

    /// What was claimed ahead and should not have been: handlers turned out to be slower than they were.
    pub(super) fn surplus(&mut self) -> Vec<Claim> {
        let keep = self.capacity().saturating_sub(self.running.len());
        // Not for small changes: each costs a statement, an attempt, and its place in the queue.
        if self.average < PREFETCH_BELOW || self.queue.len() <= keep {
            return Vec::new();
        }
        self.queue.split_off(keep).iter().map(Claim::of).collect()
    }

    /// So many handlers of held messages took so long together.
    pub(super) fn were_held(&mut self, handlers: u32, took: Duration) {
        // As many as the average looks back to, or as there were.
        for _ in 0..handlers.min(8) {
            self.average = (self.average * 7 + took / handlers) / 8;
        }
    }

    pub(super) fn average(&self) -> Duration {
        self.average
    }

    /// Handlers that have all been running for long say as much as one that has ended.
    pub(super) fn notice_slow(&mut self, now: Instant) {
        if self.tasks >= self.concurrency {
            let youngest = self.running.values().filter_map(|running| running.begun.at()).max();
            self.average = self.average.max(youngest.map_or(Duration::ZERO, |begun| now - begun));
        }
    }

    /// Gives up those that the limit of a handler did not stop because they never yield.
    pub(super) fn overdue(&mut self, limit: Duration, now: Instant) -> Vec<Claim> {
        let is_overdue = |running: &Running| {
            running.begun.at().is_some_and(|begun| now - begun > limit * running.together as u32 + GRACE)
        };
        let overdue = self.running.iter().filter(|(_, running)| is_overdue(running));
        let overdue: Vec<Claim> = overdue.map(|(claim, _)| *claim).collect();
        for claim in &overdue {
            self.give_up(claim);
        }
        overdue
    }

    /// Drops what is gone; returns how many messages had not started, and how many ran. A task goes on for those of its
    /// messages that are not.
    pub(super) fn drop_gone(&mut self, is_gone: impl Fn(Claim) -> bool) -> (usize, usize) {
        let before = self.queue.len();
        self.queue.retain(|delivery| !is_gone(Claim::of(delivery)));
        let stopped: Vec<Claim> = self.running.keys().copied().filter(|claim| is_gone(*claim)).collect();
        for claim in &stopped {
            self.give_up(claim);
        }
        (before - self.queue.len(), stopped.len())
    }

    /// The last message of a task stops it and frees its place.
    fn give_up(&mut self, claim: &Claim) {
        if let Some(running) = self.running.remove(claim)
            && !self.running.values().any(|other| other.begun.is(&running.begun))
        {
            running.abort.abort();
            self.tasks -= 1;
        }
    }

    /// How many messages run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Takes what has not started.
    pub(super) fn take_unstarted(&mut self) -> Vec<Claim> {
        self.queue.drain(..).map(|delivery| Claim::of(&delivery)).collect()
    }

    /// Stops what runs.
    pub(super) fn stop(&mut self) -> Vec<Claim> {
        self.tasks = 0;
        let stopped = self.running.drain().map(|(claim, running)| {
            running.abort.abort();
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
            received: Instant::now(),
            owner: "me".into(),
            payload: "{}".into(),
            unreadable: None,
        }
    }

    pub(in crate::consumer) fn claim(id: i64) -> Claim {
        Claim::of(&delivery(id))
    }

    fn workers(concurrency: usize, tx_batch: usize) -> Workers {
        Workers::new(&ConsumerConfig { concurrency, tx_batch, ..ConsumerConfig::default() })
    }

    /// Starts tasks as long as there are free handlers; returns how many messages each has, and the tasks.
    fn start(workers: &mut Workers, in_tx: bool) -> (Vec<usize>, Vec<tokio::task::JoinHandle<()>>) {
        let (mut sizes, mut tasks) = (Vec::new(), Vec::new());
        while let Some(deliveries) = workers.next_task(|_| in_tx) {
            let claims: Vec<Claim> = deliveries.iter().map(Claim::of).collect();
            let task = tokio::spawn(std::future::pending());
            let begun = Begun::default();
            begun.now();
            workers.started(&claims, &begun, &task.abort_handle());
            sizes.push(claims.len());
            tasks.push(task);
        }
        (sizes, tasks)
    }

    fn end(workers: &mut Workers, id: i64, took: Duration) -> usize {
        let mut ran = vec![(claim(id), Ran::Completed)];
        workers.ended(&mut ran, took);
        ran.len()
    }

    #[tokio::test]
    async fn a_task_has_one_message_or_a_batch_for_transactional_handlers() {
        let mut workers = workers(2, 3);
        workers.queue((0..8).map(delivery).collect());
        assert_eq!(start(&mut workers, true).0, [3, 3]);
        assert!(workers.next_task(|_| true).is_none(), "no free handler");
        workers.stop();
        assert_eq!(start(&mut workers, false).0, [1, 1]);
    }

    #[tokio::test]
    async fn room_is_for_free_handlers_or_for_half_the_capacity() {
        let mut workers = workers(4, 1);
        assert_eq!(workers.room(0), Some(4), "no claiming ahead before a handler was seen to be fast");
        assert_eq!(workers.room(3), Some(1));
        assert_eq!(workers.room(4), None);
        workers.queue((0..4).map(delivery).collect());
        start(&mut workers, false);
        assert_eq!(workers.room(0), None);
        for id in 0..4 {
            (0..30).for_each(|_| workers.average = (workers.average * 7) / 8);
            end(&mut workers, id, Duration::from_millis(1));
        }
        let capacity = workers.room(0).unwrap();
        assert!((4 + 4..=4 + PREFETCH_MAX).contains(&capacity), "{capacity}");
        workers.queue((0..capacity as i64 / 2 + 2).map(delivery).collect());
        start(&mut workers, false);
        assert_eq!(workers.room(0), None, "more than half of it is there, and every handler is busy");
    }

    #[tokio::test]
    async fn what_a_transaction_takes_is_not_claimed_for_plain_handlers() {
        let mut workers = workers(8, 20);
        assert_eq!(workers.room(0), Some(8));
        workers.queue((0..8).map(delivery).collect());
        start(&mut workers, false);
        assert_eq!((workers.room(0), workers.surplus().len()), (None, 0));
        workers.stop();
        workers.queue((0..8).map(delivery).collect());
        start(&mut workers, true);
        assert_eq!(workers.room(0), Some(8 * 20 - 8));
    }

    #[tokio::test]
    async fn what_was_claimed_ahead_of_handlers_that_became_slow_is_surplus() {
        let mut workers = workers(2, 1);
        workers.queue((0..6).map(delivery).collect());
        start(&mut workers, false);
        workers.average = Duration::from_millis(1);
        assert_eq!(workers.surplus(), []);
        workers.notice_slow(Instant::now() + Duration::from_secs(1));
        assert_eq!(workers.surplus(), [2, 3, 4, 5].map(claim));
        assert_eq!(workers.surplus(), []);
    }

    #[tokio::test]
    async fn the_overdue_are_given_up_and_the_last_of_a_task_frees_its_place() {
        let mut workers = workers(1, 2);
        workers.queue((0..4).map(delivery).collect());
        let (_, tasks) = start(&mut workers, true);
        let limit = Duration::from_secs(1);
        let now = Instant::now();
        assert_eq!(workers.overdue(limit, now + 2 * limit), [], "its two messages have twice the time");
        let mut overdue = workers.overdue(limit, now + 2 * limit + GRACE + limit);
        overdue.sort_by_key(|claim| claim.id());
        assert_eq!(overdue, [claim(0), claim(1)]);
        for task in tasks {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(end(&mut workers, 0, Duration::ZERO), 0, "what it says in the end comes too late");
        assert_eq!(start(&mut workers, true).0, [2]);
    }

    #[tokio::test]
    async fn what_is_gone_is_dropped_and_the_rest_of_its_task_goes_on() {
        let mut workers = workers(2, 2);
        workers.queue((0..6).map(delivery).collect());
        let (_, tasks) = start(&mut workers, true);
        assert_eq!(workers.drop_gone(|claim| [0, 2, 3, 4].contains(&claim.id())), (1, 3));
        let mut tasks = tasks.into_iter();
        let (first, second) = (tasks.next().unwrap(), tasks.next().unwrap());
        assert!(second.await.unwrap_err().is_cancelled());
        assert!(!first.is_finished());
        assert_eq!((end(&mut workers, 0, Duration::ZERO), end(&mut workers, 1, Duration::ZERO)), (0, 1));
        assert_eq!((workers.running(), start(&mut workers, false).0), (0, vec![1]));
    }

    #[tokio::test]
    async fn a_task_that_waits_for_its_turn_is_not_overdue() {
        let mut workers = workers(1, 1);
        let task = tokio::spawn(std::future::pending::<()>());
        workers.started(&[claim(1)], &Begun::default(), &task.abort_handle());
        assert_eq!(workers.overdue(Duration::ZERO, Instant::now() + Duration::from_secs(3600)), []);
    }

    #[tokio::test]
    async fn stopping_takes_what_runs_and_leaves_what_waits() {
        let mut workers = workers(1, 1);
        workers.queue(vec![delivery(1), delivery(2)]);
        let (_, tasks) = start(&mut workers, false);
        assert_eq!((workers.stop(), workers.take_unstarted()), (vec![claim(1)], vec![claim(2)]));
        for task in tasks {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!((workers.running(), end(&mut workers, 1, Duration::ZERO)), (0, 0));
    }
}
