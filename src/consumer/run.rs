//! The consumer's loop: wait, claim, start handlers, settle.
//!
//! One task owns all state. Each part decides for itself and does nothing; here what one says is handed to the others,
//! and becomes a task. Tasks are futures that the loop polls beside everything else, so a claim, a settle and handlers
//! go on at the same time.

mod batches;
mod drain;
mod events;

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tracing::info;

use super::{
    allowance::Allowance,
    breaker_report::BreakerReport,
    claiming::claim,
    config::ConsumerConfig,
    context::Context,
    handling::handle,
    held_batch::{self, HeldBatch},
    holding::Holding,
    lanes::Task,
    looking::{Looking, NextLook},
    outbox::Outbox,
    parking::{self, Action, Parking},
    places::Places,
    pulse::Pulse,
    running::Begun,
    settle::settle_until_done,
    signals::{Signal, Signals, Times},
    suspects, together,
    under_way::{Ended, Kind, UnderWay},
    workers::Workers,
};
use crate::{
    error::{Error, Result},
    handler::Registry,
    message::Found,
    process::{Bell, Process},
    store::{Claim, Most, Store},
};

pub(super) struct Loop {
    context: Arc<Context>,
    signals: Signals,
    /// The owner of everything below.
    owner: Arc<str>,
    looking: Looking,
    holding: Holding,
    parking: Parking,
    workers: Workers,
    outbox: Outbox,
    report: BreakerReport,
    under_way: UnderWay,
    /// The role may not consume any more: it ends with this.
    forbidden: Option<Error>,
}

/// What woke the loop.
enum Event {
    Ended(Ended),
    Signal(Signal),
}

impl Loop {
    pub(super) async fn join(
        store: Store,
        process: Arc<Process>,
        target: String,
        config: ConsumerConfig,
        registry: Registry,
        stopping: watch::Receiver<Option<Duration>>,
    ) -> Result<Self> {
        let bell = Arc::new(Bell::default());
        let holds = config.hold.is_some();
        process.join(&target, config.record_types.as_deref(), config.concurrency, holds, &bell).await?;
        let in_hand = process.in_hand();
        let mut signals = Signals::new(bell, stopping, process.owners(), in_hand.gone(), in_hand.taken());
        // Of consumers that accept only some record types, each is somewhere else.
        let places = match config.record_types {
            None => Places::load(store.places(&target).await?),
            Some(_) => Places::default(),
        };
        let looking = Looking::new(&target, places);
        let allowance = Allowance::new(config.messages_max);
        let (workers, holding) =
            (Workers::new(&config, registry.batches()), Holding::new(&config, registry.is_plain()));
        let (pulse, slots) = (Pulse::new(), Arc::new(Semaphore::new(config.concurrency)));
        let context = Context { store, target, config, registry, process, allowance, pulse, slots };
        Ok(Self {
            context: Arc::new(context),
            owner: signals.owner(),
            signals,
            looking,
            holding,
            parking: Parking::new(),
            workers,
            outbox: Outbox::default(),
            report: BreakerReport::default(),
            under_way: UnderWay::new(),
            forbidden: None,
        })
    }

    pub(super) fn pulse(&self) -> &Pulse {
        &self.context.pulse
    }

    /// # Errors
    /// That the role may not consume any more, once what can be ended is.
    pub(super) async fn run(mut self) -> Result<()> {
        info!(target_app = %self.context.target, owner = %self.owner, "consuming");
        self.plan_sweep();
        while self.forbidden.is_none() {
            self.context.pulse.beat();
            self.begin();
            match self.next().await {
                Event::Ended(ended) => self.ended(ended),
                Event::Signal(Signal::Stop) => break,
                Event::Signal(signal) => self.signalled(signal),
            }
        }
        let forbidden = self.forbidden.take();
        // In a box: as long as it runs, a consumer carries what it needs for its end.
        Box::pin(self.drain()).await;
        forbidden.map_or(Ok(()), Err)
    }

    /// Begins whatever there is reason and room for.
    fn begin(&mut self) {
        self.begin_handlers();
        self.begin_settle();
        self.begin_looks();
        if self.report.is_urgent() {
            self.begin_report();
        }
    }

    async fn next(&mut self) -> Event {
        // Nobody needs to be reminded of a look that is wanted already, or under way.
        let idle = !self.looking.is_wanted() && !self.under_way.has(Kind::Claim);
        let look_at = self.parking.next_look().filter(|_| idle);
        let everywhere_at = self.looking.everywhere_at().filter(|_| idle);
        let times =
            Times { look_at, back_at: self.looking.back_at(), everywhere_at, batch_at: self.workers.next_task_at() };
        tokio::select! {
            biased;
            ended = self.under_way.next() => Event::Ended(ended),
            signal = self.signals.next(times) => Event::Signal(signal),
        }
    }

    fn begin_handlers(&mut self) {
        let is_blocked = self.holding.is_blocked(self.under_way.held_for());
        while self.workers.are_waited_for() {
            let slot = self.context.slots.clone().try_acquire_owned().ok();
            if slot.is_none() && !is_blocked {
                return;
            }
            let Some(task) = self.workers.next_task() else { return };
            let (begun, context) = (Begun::default(), self.context.clone());
            match task {
                Task::One(delivery) => {
                    let claim = Claim::of(&delivery);
                    let abort = self.under_way.begin_handler(|tell| handle(context, delivery, begun.clone(), tell));
                    self.workers.started(claim, &begun, &abort, slot);
                }
                Task::Several(batch) => {
                    let Some(claim) = batch.first().map(Claim::of) else { continue };
                    let given = batch.clone();
                    let task = |tell| together::handle(context, given, claim, begun.clone(), tell);
                    let abort = self.under_way.begin_handler(task);
                    self.workers.started_with(claim, batch, &begun, &abort, slot);
                }
            }
        }
    }

    fn begin_settle(&mut self) {
        if let Some(settlements) = self.outbox.send() {
            let settle = settle_until_done(self.context.clone(), self.owner.clone(), settlements);
            self.under_way.begin(Kind::Settle, settle.map(Ended::Settled));
        }
    }

    fn begin_looks(&mut self) {
        if self.next_look() == NextLook::Held && self.looking.is_wanted() && !self.workers.have_room() {
            // First what was leased before: more of it would keep any from ever being held.
            return self.park(parking::Event::Busy);
        }
        while self.looking.is_wanted() && self.next_look() == NextLook::Held && self.begin_held() {}
        let next = self.next_look();
        if self.looking.is_wanted() && next != NextLook::Held {
            self.begin_claim(next);
        }
    }

    fn next_look(&self) -> NextLook {
        self.holding.next_look(self.context.process.age(), self.under_way.held_for())
    }

    /// Begins a batch in a transaction, where one more is worthwhile.
    fn begin_held(&mut self) -> bool {
        let Some((limit, cap)) = self.holding.batch(self.under_way.held()) else { return false };
        let Some(holder) = self.context.store.holder() else {
            // Connections are scarce. If they are so because of its own batches, it waits for one of these.
            if self.under_way.held() == 0 {
                self.begin_claim(NextLook::Leased);
            }
            return false;
        };
        let limit = self.context.allowance.take(limit);
        if limit == 0 {
            return false;
        }
        // Looked for again when the batch has said what it found.
        let Some(look) = self.looking.begin(NextLook::Held, self.parking.is_settling()) else { return false };
        let (context, owner) = (self.context.clone(), self.owner.clone());
        self.under_way.begin_held(HeldBatch::refused(look.0, limit), |tell| async move {
            let batch = held_batch::run(context, owner, look, (limit, cap), tell).await;
            drop(holder);
            batch
        });
        true
    }

    /// Begins a look for leases, where there is room for a worthwhile batch.
    fn begin_claim(&mut self, next: NextLook) {
        if self.under_way.has(Kind::Claim) || self.looking.back_at().is_some() {
            return;
        }
        let Some(room) = self.workers.room(self.outbox.len()) else {
            // Too busy to answer bells.
            return self.park(parking::Event::Busy);
        };
        let limit = self.context.allowance.take(room);
        if limit == 0 {
            return;
        }
        let Some(look) = self.looking.begin(next, self.parking.is_settling()) else { return };
        let most = Most { messages: limit, of_a_key: self.workers.series() };
        let seen = self.looking.asks_for_turn(Instant::now());
        let claim = claim(self.context.clone(), self.owner.clone(), look, most, seen, self.looking.pause());
        self.under_way.begin(Kind::Claim, claim.map(Ended::Claimed));
    }

    fn begin_suspects(&mut self) {
        if !self.under_way.has(Kind::Suspects) {
            let stopping = self.signals.stopping().clone();
            let suspects = suspects::run_alone(self.context.clone(), self.owner.clone(), stopping);
            self.under_way.begin(Kind::Suspects, suspects.map(|()| Ended::Suspects));
        }
    }

    fn begin_report(&mut self) {
        if !self.under_way.has(Kind::Report)
            && let Some(report) = self.report.take()
        {
            self.under_way.begin(Kind::Report, report.tell(self.context.clone()).map(|()| Ended::Reported));
        }
    }

    /// Tells the state machine of parking, and does what it says.
    fn park(&mut self, event: parking::Event) {
        let now = Instant::now();
        match self.parking.on(event, now) {
            Action::Nothing => {}
            Action::Park => {
                let context = self.context.clone();
                let park = async move { Ended::Latched(context.process.listener().park(&context.target).await) };
                self.under_way.begin(Kind::Park, park);
            }
            Action::Unpark(parked) => self.context.process.listener().unpark(&self.context.target, parked),
            Action::Look => self.looking.also_look(Found::Drain),
            Action::LookEverywhere => self.looking.look_everywhere(Found::Drain),
            Action::LookEverywhereSoon => self.looking.look_everywhere_soon(now),
            Action::ForgetPlaces => self.looking.forget_places(),
        }
    }
}
