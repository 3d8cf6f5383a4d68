//! The consumer's loop: wait, claim, start handlers, settle.
//!
//! One task owns all state. Claims and settles are futures that it polls beside everything else, at most one of each at a
//! time: completions that arrive while a settle is under way travel together with the next one, so batches grow with
//! load and no timer sits on the path of a lone message.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tracing::{debug, info, warn};

use super::{ConsumerConfig, allowance::Allowance, suspects};
use crate::{
    backoff,
    broker::Broker,
    error::{Error, Result},
    handler::{Registry, timeout_reason},
    message::{Delivery, Found, MessageId},
    outcome::Outcome,
    process::Process,
    store::{ClaimRequest, Settlement, Store, Verdict},
    wake::Bell,
};

type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A message and its attempt: what a verdict is about.
type Key = (MessageId, i32);

/// Handlers faster than this on average are worth prefetching for.
const PREFETCH_BELOW: Duration = Duration::from_millis(50);
/// A handler that its timeout did not stop (it blocks its thread) is given up this much later.
const GRACE: Duration = Duration::from_secs(1);
const WATCHDOG: Duration = Duration::from_secs(1);
const RETRY_BASE: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_secs(2);
/// How long a consumer that stops tries to settle what it holds.
const LAST_SETTLE_MAX: Duration = Duration::from_secs(5);
/// Most messages settled by one statement.
const SETTLE_MAX: usize = 2000;

/// What every part of one consumer needs.
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) target: String,
    pub(super) config: ConsumerConfig,
    pub(super) registry: Registry,
    pub(super) process: Arc<Process>,
    pub(super) allowance: Allowance,
}

impl Context {
    pub(super) fn request<'a>(&'a self, owner: &'a Arc<str>) -> ClaimRequest<'a> {
        ClaimRequest {
            target: &self.target,
            owner,
            record_types: self.config.record_types.as_deref(),
            bytes_max: i64::try_from(self.config.claim_bytes_max).unwrap_or(i64::MAX),
        }
    }
}

pub(super) struct Loop {
    context: Arc<Context>,
    broker: Broker,
    bell: Arc<Bell>,
    stopping: watch::Receiver<Option<Duration>>,
    incarnation: watch::Receiver<Arc<str>>,
    /// The owner of everything below.
    owner: Arc<str>,
    queue: VecDeque<Delivery>,
    running: HashMap<Key, Running>,
    handlers: JoinSet<()>,
    handled: mpsc::UnboundedSender<Handled>,
    verdicts: mpsc::UnboundedReceiver<Handled>,
    unsettled: Vec<Settlement>,
    /// Messages of the settle under way.
    settling_count: usize,
    /// Why to look again, if at all; `None`: parked.
    look: Option<Found>,
    claim_failures: u32,
    average: Duration,
}

struct Running {
    abort: AbortHandle,
    /// Unset while a suspect runs alone in this process: the handler waits for it.
    started: Arc<OnceLock<Instant>>,
}

struct Handled {
    key: Key,
    outcome: Outcome,
    took: Duration,
}

/// What woke the loop.
enum Event {
    Handled(usize),
    Claimed(Found, usize, Result<Vec<Delivery>>),
    Settled,
    Rung,
    Sweep,
    Watchdog,
    SuspectsDone,
    LeaseLost,
    Stop,
}

impl Loop {
    pub(super) async fn join(
        broker: Broker,
        process: Arc<Process>,
        target: String,
        config: ConsumerConfig,
        registry: Registry,
        stopping: watch::Receiver<Option<Duration>>,
    ) -> Result<Self> {
        let bell = Arc::new(Bell::default());
        process.join(&target, config.record_types.as_deref(), config.concurrency, &bell).await?;
        let mut incarnation = process.incarnation();
        let owner = incarnation.borrow_and_update().clone();
        let (handled, verdicts) = mpsc::unbounded_channel();
        let allowance = Allowance::new(config.messages_max);
        let context = Context { store: broker.store().clone(), target, config, registry, process, allowance };
        Ok(Self {
            context: Arc::new(context),
            broker,
            bell,
            stopping,
            incarnation,
            owner,
            queue: VecDeque::new(),
            running: HashMap::new(),
            handlers: JoinSet::new(),
            handled,
            verdicts,
            unsettled: Vec::new(),
            settling_count: 0,
            // Register before looking, then look: what was there before the bell hung must be found.
            look: Some(Found::Sweep),
            claim_failures: 0,
            average: PREFETCH_BELOW,
        })
    }

    pub(super) async fn run(mut self) {
        info!(target_app = %self.context.target, owner = %self.owner, "consuming");
        let mut claiming: Option<Task<(Found, usize, Result<Vec<Delivery>>)>> = None;
        let mut settling: Option<Task<()>> = None;
        let mut suspecting: Option<Task<()>> = None;
        let mut next_sweep = self.next_sweep();
        let mut watchdog = tokio::time::interval(WATCHDOG);
        watchdog.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            self.start_handlers();
            if settling.is_none() && !self.unsettled.is_empty() {
                settling = Some(self.settle());
            }
            if claiming.is_none() {
                claiming = self.claim();
            }
            let event = tokio::select! {
                biased;
                count = self.verdicts.recv_many(&mut batch, SETTLE_MAX) => Event::Handled(count),
                () = some(&mut settling) => Event::Settled,
                (found, limit, claimed) = some(&mut claiming) => Event::Claimed(found, limit, claimed),
                () = some(&mut suspecting) => Event::SuspectsDone,
                _ = self.incarnation.changed() => Event::LeaseLost,
                _ = self.stopping.wait_for(Option::is_some) => Event::Stop,
                () = self.bell.rung() => Event::Rung,
                () = sleep_until(next_sweep) => Event::Sweep,
                _ = watchdog.tick() => Event::Watchdog,
            };
            match event {
                Event::Handled(_) => self.take_verdicts(&mut batch),
                Event::Settled => {
                    settling = None;
                    self.settling_count = 0;
                }
                Event::Claimed(found, limit, claimed) => {
                    claiming = None;
                    let found_nothing = self.take_claimed(found, limit, claimed);
                    if found_nothing && found != Found::Drain && suspecting.is_none() {
                        suspecting = Some(self.run_suspects());
                    }
                }
                Event::Rung => self.look = Some(Found::Bell),
                Event::Sweep => {
                    self.look = self.look.or(Some(Found::Sweep));
                    // The bell that announces scheduled messages can be lost as well.
                    self.context.process.due().ring();
                    if suspecting.is_none() {
                        suspecting = Some(self.run_suspects());
                    }
                    next_sweep = self.next_sweep();
                }
                Event::Watchdog => {
                    while self.handlers.try_join_next().is_some() {}
                    self.give_up_overdue();
                }
                Event::SuspectsDone => suspecting = None,
                Event::LeaseLost => {
                    suspecting = None;
                    self.start_over();
                }
                Event::Stop => break,
            }
        }
        self.drain(claiming, settling, suspecting).await;
    }

    /// Most messages this consumer may hold: running, waiting to run, waiting to be settled.
    fn capacity(&self) -> usize {
        let concurrency = self.context.config.concurrency;
        let prefetch =
            self.context.config.prefetch.unwrap_or(if self.average < PREFETCH_BELOW { concurrency } else { 0 });
        concurrency + prefetch
    }

    fn start_handlers(&mut self) {
        while self.running.len() + self.unsettled.len() + self.settling_count < self.capacity()
            && self.running.len() < self.context.config.concurrency
            && let Some(delivery) = self.queue.pop_front()
        {
            let key = (delivery.id, delivery.attempt);
            let (context, handled) = (self.context.clone(), self.handled.clone());
            let (alone, begun) = (context.process.alone(), Arc::new(OnceLock::new()));
            let running = begun.clone();
            let abort = self.handlers.spawn(async move {
                let _beside_others = alone.read_owned().await;
                let started = *begun.get_or_init(Instant::now);
                let outcome = context.registry.run(delivery, context.config.handler_timeout).await;
                // The loop is gone only when the process is being torn down.
                let _ = handled.send(Handled { key, outcome, took: started.elapsed() });
            });
            self.running.insert(key, Running { abort, started: running });
        }
    }

    /// Claims when there is a reason to look and room for a worthwhile batch: free handlers, or half the capacity.
    fn claim(&mut self) -> Option<Task<(Found, usize, Result<Vec<Delivery>>)>> {
        let found = self.look?;
        let held = self.queue.len() + self.running.len() + self.unsettled.len() + self.settling_count;
        let capacity = self.capacity();
        let idle_handlers = self.queue.is_empty() && self.running.len() < self.context.config.concurrency;
        if held >= capacity || !(idle_handlers || held <= capacity / 2) {
            return None;
        }
        let limit = self.context.allowance.take(capacity - held);
        if limit == 0 {
            return None;
        }
        self.look = None;
        let (context, owner, failures) = (self.context.clone(), self.owner.clone(), self.claim_failures);
        Some(
            async move {
                if failures > 0 {
                    tokio::time::sleep(backoff::delay(RETRY_BASE, RETRY_CAP, failures, rand::random())).await;
                }
                let claimed = context.store.claim(&context.request(&owner), limit, found).await;
                (found, limit, claimed)
            }
            .boxed(),
        )
    }

    /// Queues what was claimed; true when there was nothing.
    fn take_claimed(&mut self, found: Found, limit: usize, claimed: Result<Vec<Delivery>>) -> bool {
        match claimed {
            Ok(deliveries) => {
                if self.claim_failures > 0 {
                    info!(target_app = %self.context.target, "claiming again");
                    self.claim_failures = 0;
                }
                // A full batch: there may be more. A short one: all was taken, the bell tells of the next.
                if deliveries.len() >= limit {
                    self.look = Some(Found::Drain);
                }
                let nothing = deliveries.is_empty();
                let queued = self.queue.len();
                // A claim that was under way while the lease was lost: rescued already, or found as a stray soon.
                self.queue.extend(deliveries.into_iter().filter(|delivery| delivery.owner == self.owner));
                self.context.allowance.put_back(limit.saturating_sub(self.queue.len() - queued));
                nothing
            }
            Err(error) if error.is_lease_lost() => {
                debug!(?error, "claimed under an incarnation that was rescued");
                self.context.allowance.put_back(limit);
                self.look = Some(found);
                false
            }
            Err(error) => {
                if self.claim_failures == 0 {
                    warn!(target_app = %self.context.target, ?error, "claiming failed; trying again until it works");
                }
                self.claim_failures += 1;
                self.context.allowance.put_back(limit);
                self.look = Some(found);
                false
            }
        }
    }

    fn take_verdicts(&mut self, batch: &mut Vec<Handled>) {
        for Handled { key, outcome, took } in batch.drain(..) {
            // Not running any more: given up by the watchdog, or its lease was lost.
            if self.running.remove(&key).is_some() {
                self.average = (self.average * 7 + took) / 8;
                self.unsettled.push(Settlement { id: key.0, attempt: key.1, verdict: Verdict::Outcome(outcome) });
            }
        }
        while self.handlers.try_join_next().is_some() {}
    }

    fn settle(&mut self) -> Task<()> {
        let rest = self.unsettled.split_off(self.unsettled.len().min(SETTLE_MAX));
        let settlements = std::mem::replace(&mut self.unsettled, rest);
        self.settling_count = settlements.len();
        settle_until_done(self.context.clone(), self.owner.clone(), settlements).boxed()
    }

    /// Fails handlers that their timeout did not stop because they never yield. Nothing renews a lease for them.
    fn give_up_overdue(&mut self) {
        let Some(limit) = self.context.config.handler_timeout else { return };
        let overdue: Vec<Key> = self
            .running
            .iter()
            .filter(|(_, running)| running.started.get().is_some_and(|started| started.elapsed() > limit + GRACE))
            .map(|(key, _)| *key)
            .collect();
        for key in overdue {
            if let Some(running) = self.running.remove(&key) {
                running.abort.abort();
                warn!(
                    id = key.0,
                    attempt = key.1,
                    "the handler did not stop at its timeout; is it blocking its thread?"
                );
                let reason = timeout_reason(limit) + " and did not stop";
                self.unsettled.push(Settlement {
                    id: key.0,
                    attempt: key.1,
                    verdict: Verdict::Outcome(Outcome::retry(reason)),
                });
            }
        }
    }

    /// The lease was lost: stop everything that ran under it.
    fn start_over(&mut self) {
        let owner = self.incarnation.borrow_and_update().clone();
        if owner == self.owner {
            return;
        }
        let lost = self.queue.len() + self.running.len() + self.unsettled.len();
        if lost > 0 {
            warn!(lost, owner = %self.owner, "handlers are cancelled: their lease was lost");
        }
        self.running.drain().for_each(|(_, running)| running.abort.abort());
        self.context.allowance.put_back(self.queue.len());
        self.queue.clear();
        self.unsettled.clear();
        self.owner = owner;
        self.look = Some(Found::Sweep);
    }

    /// Stops claiming, gives back what did not start, waits for what runs, settles it all.
    async fn drain(
        mut self,
        claiming: Option<Task<(Found, usize, Result<Vec<Delivery>>)>>,
        settling: Option<Task<()>>,
        suspecting: Option<Task<()>>,
    ) {
        let drain_timeout = self.stopping.borrow().unwrap_or(self.context.config.drain_timeout);
        let deadline = Instant::now() + drain_timeout;
        info!(target_app = %self.context.target, running = self.running.len(), "draining");
        // A claim under way must come back, or its messages would wait for a rescue.
        if let Some(claiming) = claiming {
            let (_, _, claimed) = claiming.await;
            self.queue.extend(claimed.unwrap_or_default().into_iter().filter(|delivery| delivery.owner == self.owner));
        }
        let unstarted = std::mem::take(&mut self.queue);
        self.unsettled.extend(unstarted.iter().map(|delivery| Settlement {
            id: delivery.id,
            attempt: delivery.attempt,
            verdict: Verdict::Release,
        }));
        let mut settling = settling;
        let mut batch = Vec::new();
        while !self.running.is_empty() || !self.unsettled.is_empty() || settling.is_some() {
            if settling.is_none() && !self.unsettled.is_empty() {
                settling = Some(self.settle());
            }
            tokio::select! {
                biased;
                _ = self.verdicts.recv_many(&mut batch, SETTLE_MAX), if !self.running.is_empty() => self.take_verdicts(&mut batch),
                () = some(&mut settling) => settling = None,
                _ = self.incarnation.changed() => self.start_over(),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        if !self.running.is_empty() {
            warn!(
                running = self.running.len(),
                "handlers did not finish in time; they are dropped and their messages given back"
            );
            self.unsettled.extend(self.running.drain().map(|((id, attempt), running)| {
                running.abort.abort();
                Settlement { id, attempt, verdict: Verdict::Release }
            }));
        }
        if let Some(suspecting) = suspecting {
            let _ = tokio::time::timeout_at(deadline, suspecting).await;
        }
        let last = async {
            if let Some(settling) = settling {
                settling.await;
            }
            while !self.unsettled.is_empty() {
                self.settle().await;
            }
        };
        // Bounded: what cannot be settled or given back now is given back by whoever rescues.
        let _ = tokio::time::timeout(LAST_SETTLE_MAX, last).await;
        self.context.process.leave(&self.context.target, self.context.config.concurrency, &self.bell).await;
        drop(self.broker);
    }

    fn run_suspects(&self) -> Task<()> {
        suspects::run_alone(self.context.clone(), self.owner.clone(), self.stopping.clone()).boxed()
    }

    fn next_sweep(&self) -> Option<Instant> {
        self.context.config.sweep.map(|sweep| Instant::now() + backoff::jittered(sweep, rand::random()))
    }
}

/// Settles a batch, trying again until it is done or the lease is lost. An answer that was lost with its connection is
/// asked for: the settle may have happened.
pub(super) async fn settle_until_done(context: Arc<Context>, owner: Arc<str>, mut settlements: Vec<Settlement>) {
    let mut failures = 0u32;
    let mut unsure = false;
    while !settlements.is_empty() {
        match settle_once(&context.store, &owner, &settlements, unsure).await {
            Ok(lost) => {
                if lost > 0 {
                    warn!(target_app = %context.target, lost, owner = %owner, "settles came too late: the lease was lost");
                }
                return;
            }
            Err(error) => {
                if failures == 0 {
                    warn!(target_app = %context.target, count = settlements.len(), ?error, "settling failed; trying again until it works");
                }
                failures += 1;
                unsure = true;
                if failures > 3 && !error.is_transient() {
                    // Something about the outcomes themselves: keep the messages moving with a reason that can be stored.
                    plain_reasons(&mut settlements, &error);
                }
                tokio::time::sleep(backoff::delay(RETRY_BASE, RETRY_CAP, failures, rand::random())).await;
                if *context.process.incarnation().borrow() != owner {
                    return;
                }
            }
        }
    }
}

/// One round: completions in one statement, everything else in another. Returns how many had lost their lease.
async fn settle_once(store: &Store, owner: &str, settlements: &[Settlement], unsure: bool) -> Result<usize> {
    let (done, others): (Vec<&Settlement>, Vec<&Settlement>) =
        settlements.iter().partition(|s| matches!(s.verdict, Verdict::Outcome(Outcome::Done)));
    let mut settled = 0;
    if !done.is_empty() {
        let ids: Vec<MessageId> = done.iter().map(|s| s.id).collect();
        let attempts: Vec<i32> = done.iter().map(|s| s.attempt).collect();
        settled += store.complete(owner, &ids, &attempts).await?.len();
    }
    if !others.is_empty() {
        let others: Vec<Settlement> = others.into_iter().cloned().collect();
        settled += store.settle(owner, &others).await?.len();
    }
    if settled < settlements.len() && unsure {
        let ids: Vec<MessageId> = settlements.iter().map(|s| s.id).collect();
        let attempts: Vec<i32> = settlements.iter().map(|s| s.attempt).collect();
        settled = store.was_settled(&ids, &attempts).await?.len();
    }
    Ok(settlements.len().saturating_sub(settled))
}

fn plain_reasons(settlements: &mut [Settlement], error: &Error) {
    for settlement in settlements {
        if let Verdict::Outcome(Outcome::Retry { reason, .. } | Outcome::Reject { reason }) = &mut settlement.verdict {
            *reason = format!("failed; its own reason could not be stored ({error})");
        }
    }
}

/// Polls a task that may not be there; without one it never completes.
async fn some<T>(task: &mut Option<Task<T>>) -> T {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
