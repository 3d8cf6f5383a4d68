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
    time::{Duration, SystemTime},
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tracing::{info, warn};

use super::{
    ConsumerConfig,
    allowance::Allowance,
    claiming::Claimed,
    handling::{Handled, handle},
    in_transaction::{HeldBatch, HeldLook, Hold},
    marks::{From, Marks},
    parking::Parking,
    prefetch::PREFETCH_BELOW,
    pulse::Pulse,
    runs::Runs,
    settle::settle_until_done,
    suspects,
};
use crate::{
    core::Core,
    error::Result,
    handler::Registry,
    message::{Delivery, Found, MessageId},
    process::{Bell, Parked, Process},
    store::{ClaimRequest, Settlement, Store, Verdict},
};

pub(super) type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A message and its attempt: what a verdict is about.
pub(super) type Key = (MessageId, i32);

const WATCHDOG: Duration = Duration::from_secs(1);
/// Most messages settled by one statement.
pub(super) const SETTLE_MAX: usize = 2000;

/// What every part of one consumer needs.
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) target: String,
    pub(super) config: ConsumerConfig,
    pub(super) registry: Registry,
    pub(super) process: Arc<Process>,
    pub(super) allowance: Allowance,
    pub(super) pulse: Pulse,
}

impl Context {
    pub(super) fn request<'a>(&'a self, owner: &'a Arc<str>) -> ClaimRequest<'a> {
        ClaimRequest {
            target: &self.target,
            owner,
            record_types: self.config.record_types.as_deref(),
            except_types: None,
            bytes_max: i64::try_from(self.config.claim_bytes_max).unwrap_or(i64::MAX),
        }
    }
}

pub(super) struct Loop {
    pub(super) context: Arc<Context>,
    pub(super) core: Arc<Core>,
    pub(super) bell: Arc<Bell>,
    pub(super) stopping: watch::Receiver<Option<Duration>>,
    pub(super) incarnation: watch::Receiver<Arc<str>>,
    /// The owner of everything below.
    pub(super) owner: Arc<str>,
    pub(super) queue: VecDeque<Delivery>,
    pub(super) running: HashMap<Key, Running>,
    /// Handler tasks that have not reported.
    pub(super) tasks: usize,
    pub(super) handlers: JoinSet<()>,
    pub(super) handled: mpsc::UnboundedSender<Handled>,
    pub(super) verdicts: mpsc::UnboundedReceiver<Handled>,
    pub(super) unsettled: Vec<Settlement>,
    /// Messages of the settle under way.
    pub(super) settling_count: usize,
    /// Why to look again, if at all; `None`: parked.
    pub(super) look: Option<Found>,
    /// Where looks begin.
    pub(super) marks: Marks,
    /// The next look begins at the beginning.
    pub(super) everywhere: bool,
    /// Then such a look is due.
    pub(super) look_everywhere_at: Option<Instant>,
    /// The target had a limit of messages in flight at the last look.
    pub(super) limited: bool,
    /// Full batches in a row.
    pub(super) full_batches: u32,
    pub(super) hold: Hold,
    /// The marks that the database has.
    pub(super) kept: Vec<(i32, SystemTime, MessageId)>,
    pub(super) parking: Parking,
    pub(super) last_bell: Option<Instant>,
    pub(super) close_bells: u32,
    pub(super) claim_failures: u32,
    pub(super) average: Duration,
    pub(super) runs: Runs,
}

pub(super) struct Running {
    pub(super) abort: AbortHandle,
    /// Unset while a suspect runs alone in this process: the handler waits for it.
    pub(super) started: Arc<OnceLock<Instant>>,
    /// How many messages its task runs.
    pub(super) together: usize,
}

/// What woke the loop.
enum Event {
    Handled,
    Claimed(Claimed),
    HeldLook(HeldLook),
    Held(HeldBatch),
    Parked(Option<Parked>),
    LookAgain,
    LookEverywhere,
    Kept,
    Settled,
    Rung,
    Sweep,
    /// Whether there is something to look for.
    Swept(bool),
    Watchdog,
    SuspectsDone,
    Reported,
    LeaseLost,
    Stop,
}

impl Loop {
    pub(super) async fn join(
        core: Arc<Core>,
        process: Arc<Process>,
        target: String,
        config: ConsumerConfig,
        registry: Registry,
        stopping: watch::Receiver<Option<Duration>>,
    ) -> Result<Self> {
        let bell = Arc::new(Bell::default());
        process
            .join(&target, config.record_types.as_deref(), config.concurrency, config.in_transaction.is_some(), &bell)
            .await?;
        let mut incarnation = process.incarnation();
        let owner = incarnation.borrow_and_update().clone();
        let (handled, verdicts) = mpsc::unbounded_channel();
        let allowance = Allowance::new(config.messages_max);
        // Of consumers that accept only some record types, each is somewhere else.
        let marks = match config.record_types {
            None => Marks::load(core.store().marks(&target).await?),
            Some(_) => Marks::default(),
        };
        let hold = Hold::new(config.tx_batch);
        let (store, pulse) = (core.store().clone(), Pulse::new());
        let context = Context { store, target, config, registry, process, allowance, pulse };
        Ok(Self {
            context: Arc::new(context),
            core,
            bell,
            stopping,
            incarnation,
            owner,
            queue: VecDeque::new(),
            running: HashMap::new(),
            tasks: 0,
            runs: Runs::default(),
            handlers: JoinSet::new(),
            handled,
            verdicts,
            unsettled: Vec::new(),
            settling_count: 0,
            // Register before looking, then look: what was there before the bell hung must be found.
            look: Some(Found::Sweep),
            marks,
            everywhere: false,
            look_everywhere_at: None,
            limited: false,
            full_batches: 0,
            kept: Vec::new(),
            hold,
            parking: Parking::Awake,
            last_bell: None,
            close_bells: 0,
            claim_failures: 0,
            average: PREFETCH_BELOW,
        })
    }

    pub(super) async fn run(mut self) {
        info!(target_app = %self.context.target, owner = %self.owner, "consuming");
        let mut claiming: Option<Task<Claimed>> = None;
        let mut settling: Option<Task<()>> = None;
        let mut suspecting: Option<Task<()>> = None;
        let mut reporting: Option<Task<()>> = None;
        let mut parking: Option<Task<Option<Parked>>> = None;
        let mut keeping: Option<Task<()>> = None;
        let mut sweeping: Option<Task<bool>> = None;
        let mut holding: FuturesUnordered<Task<HeldBatch>> = FuturesUnordered::new();
        let mut next_sweep = self.next_sweep();
        let mut watchdog = tokio::time::interval(WATCHDOG);
        watchdog.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            self.context.pulse.beat();
            self.start_handlers();
            if settling.is_none() && !self.unsettled.is_empty() {
                settling = Some(self.settle());
            }
            while self.may_hold(holding.len())
                && let Some(batch) = self.hold()
            {
                holding.push(batch);
            }
            if claiming.is_none() && !self.holds() {
                claiming = self.claim();
            }
            if reporting.is_none() && self.runs.urgent {
                reporting = self.report_runs();
            }
            let next_look = self.next_look().filter(|_| self.look.is_none() && claiming.is_none());
            let everywhere_at = self.look_everywhere_at.filter(|_| self.look.is_none() && claiming.is_none());
            let event = tokio::select! {
                biased;
                _ = self.verdicts.recv_many(&mut batch, SETTLE_MAX) => Event::Handled,
                () = some(&mut settling) => Event::Settled,
                claimed = some(&mut claiming) => Event::Claimed(claimed),
                Some(look) = self.hold.looks.recv() => Event::HeldLook(look),
                Some(batch) = holding.next() => Event::Held(batch),
                parked = some(&mut parking) => Event::Parked(parked),
                () = some(&mut suspecting) => Event::SuspectsDone,
                () = some(&mut reporting) => Event::Reported,
                _ = self.incarnation.changed() => Event::LeaseLost,
                _ = self.stopping.wait_for(Option::is_some) => Event::Stop,
                () = self.bell.rung() => Event::Rung,
                () = sleep_until(next_look) => Event::LookAgain,
                () = sleep_until(everywhere_at) => Event::LookEverywhere,
                () = some(&mut keeping) => Event::Kept,
                () = sleep_until(next_sweep) => Event::Sweep,
                waiting = some(&mut sweeping) => Event::Swept(waiting),
                _ = watchdog.tick() => Event::Watchdog,
            };
            match event {
                Event::Handled => {
                    self.take_verdicts(&mut batch);
                    self.give_back_surplus();
                }
                Event::Settled => {
                    settling = None;
                    self.settling_count = 0;
                    self.look_if_limited();
                }
                Event::Claimed(claimed) => {
                    claiming = None;
                    if let Some(dry) = self.take_claimed(claimed) {
                        if parking.is_none() {
                            parking = self.ran_dry(&dry);
                        }
                        // Also at the last look before parking: a rescue may have found nobody parked to ring for.
                        let worth = dry.found != Found::Drain || dry.from == From::Beginning;
                        if dry.nothing && worth && suspecting.is_none() {
                            suspecting = Some(self.run_suspects());
                        }
                    }
                }
                Event::HeldLook(look) => self.held_looked(look),
                Event::Held(batch) => self.held(batch),
                Event::Rung => self.rung(),
                Event::LookAgain => self.look = Some(Found::Drain),
                Event::LookEverywhere => self.look_everywhere(Found::Drain),
                Event::Kept => keeping = None,
                Event::Parked(parked) => {
                    parking = None;
                    self.parked(parked);
                }
                Event::Sweep => {
                    if keeping.is_none() {
                        keeping = self.keep_marks();
                    }
                    sweeping = Some(self.sweep());
                    next_sweep = self.next_sweep();
                }
                Event::Swept(waiting) => {
                    sweeping = None;
                    if waiting {
                        self.look_everywhere(Found::Sweep);
                        if suspecting.is_none() {
                            suspecting = Some(self.run_suspects());
                        }
                    }
                }
                Event::Watchdog => {
                    while self.handlers.try_join_next().is_some() {}
                    self.give_up_overdue();
                    self.notice_slow_handlers();
                    self.give_back_surplus();
                    if reporting.is_none() {
                        reporting = self.report_runs();
                    }
                }
                Event::Reported => reporting = None,
                Event::SuspectsDone => suspecting = None,
                Event::LeaseLost => {
                    suspecting = None;
                    self.start_over();
                }
                Event::Stop => break,
            }
        }
        // Short by their cap.
        while let Some(batch) = holding.next().await {
            self.held(batch);
        }
        self.drain(claiming, settling, suspecting, parking).await;
    }

    fn start_handlers(&mut self) {
        while self.tasks < self.context.config.concurrency
            && let Some(first) = self.queue.pop_front()
        {
            let mut deliveries = vec![first];
            if self.runs_in_tx(&deliveries[0]) {
                while deliveries.len() < self.context.config.tx_batch
                    && self.queue.front().is_some_and(|next| self.runs_in_tx(next))
                {
                    deliveries.extend(self.queue.pop_front());
                }
            }
            let keys: Vec<Key> = deliveries.iter().map(|delivery| (delivery.id, delivery.attempt)).collect();
            let begun = Arc::new(OnceLock::new());
            let abort =
                self.handlers.spawn(handle(self.context.clone(), deliveries, begun.clone(), self.handled.clone()));
            self.tasks += 1;
            for &key in &keys {
                self.running
                    .insert(key, Running { abort: abort.clone(), started: begun.clone(), together: keys.len() });
            }
        }
    }

    fn runs_in_tx(&self, delivery: &Delivery) -> bool {
        self.context.registry.tx(&delivery.record_type).is_some()
    }

    pub(super) fn take_verdicts(&mut self, batch: &mut Vec<Handled>) {
        for Handled { verdicts, canary, took } in batch.drain(..) {
            let mut mine = false;
            for (key, verdict) in verdicts {
                // Not running any more: given up by the watchdog, or its lease was lost.
                mine |= self.running.remove(&key).is_some_and(|_| {
                    self.runs.count(&verdict, canary);
                    if matches!(verdict, Verdict::Completed | Verdict::LeaseLost) {
                        self.context.process.held().forget([key]);
                        self.look_if_limited();
                    } else {
                        self.unsettled.push(Settlement { id: key.0, attempt: key.1, verdict });
                    }
                    true
                });
            }
            if mine {
                self.tasks -= 1;
                self.average = (self.average * 7 + took) / 8;
            }
        }
        while self.handlers.try_join_next().is_some() {}
    }

    pub(super) fn settle(&mut self) -> Task<()> {
        let rest = self.unsettled.split_off(self.unsettled.len().min(SETTLE_MAX));
        let settlements = std::mem::replace(&mut self.unsettled, rest);
        self.settling_count = settlements.len();
        settle_until_done(self.context.clone(), self.owner.clone(), settlements).boxed()
    }

    /// The lease was lost: stop everything that ran under it.
    pub(super) fn start_over(&mut self) {
        let owner = self.incarnation.borrow_and_update().clone();
        if owner == self.owner {
            return;
        }
        let lost = self.queue.len() + self.running.len() + self.unsettled.len();
        if lost > 0 {
            warn!(target_app = %self.context.target, lost, owner = %self.owner, "handlers are cancelled: their lease was lost");
            self.context.store.telemetry().lease_lost(&self.context.target, lost);
        }
        self.running.drain().for_each(|(_, running)| running.abort.abort());
        self.tasks = 0;
        self.context.allowance.put_back(self.queue.len());
        self.queue.clear();
        self.unsettled.clear();
        self.owner = owner;
        self.claim_failures = 0;
        self.forget_places();
        self.look = Some(Found::Sweep);
    }

    fn run_suspects(&self) -> Task<()> {
        suspects::run_alone(self.context.clone(), self.owner.clone(), self.stopping.clone()).boxed()
    }
}

/// Polls a task that may not be there; without one it never completes.
pub(super) async fn some<T>(task: &mut Option<Task<T>>) -> T {
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
