//! What is one process: its registration and lease, what it has in hand, and what runs in its background. One per broker,
//! shared by all its consumers.

mod registration;

mod alarm;
mod aside;
mod heartbeat;
mod maintenance;

mod bell;
mod listener;
mod proof;
mod session;
mod sweep;

mod requesters;

mod found;
mod in_hand;
mod isolation;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use self::{
    aside::{Alive, Aside},
    found::FoundAccounts,
    heartbeat::Heartbeat,
    in_hand::InHand,
    isolation::Isolation,
    listener::Listener,
    registration::Registration,
    sweep::Sweeper,
};
use crate::{connection::Settings, error::Result, store::Store};

pub(crate) use bell::Bell;
pub(crate) use heartbeat::LeaseConfig;
pub(crate) use registration::fresh_name;
pub(crate) use requesters::Requesters;
pub(crate) use session::{Parked, PingConfig};

/// For how many beats a runtime may run no task before it is called blocked.
const PATIENCE: u32 = 2;

/// How long a process that ends waits for its claims under way.
const CLAIMS_END_WITHIN: Duration = Duration::from_secs(5);

/// The running process. Dropping it ends its tasks; what it had in hand is rescued by others.
#[derive(Debug)]
pub(crate) struct Process {
    registration: Arc<Registration>,
    store: Store,
    /// Which messages and attempts its consumers have.
    in_hand: Arc<InHand>,
    found: Arc<FoundAccounts>,
    isolation: Isolation,
    listener: Listener,
    sweeper: Sweeper,
    /// Rung when the next scheduled message may be due earlier than the alarm is set for.
    due: Arc<Bell>,
    started: Instant,
    /// What would go on after the process has said that it is no more.
    maintenance: AbortHandle,
    heartbeat: AbortHandle,
    _alive: Alive,
    _tasks: JoinSet<()>,
}

impl Process {
    /// Registers a fresh owner and starts heartbeat, listener, alarm clock and maintenance. `beats` is a store with a
    /// connection of its own, which nobody has used yet.
    pub(crate) async fn start(
        store: Store,
        beats: Store,
        settings: Settings,
        lease: LeaseConfig,
        ping: PingConfig,
    ) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let (aside, alive) = Aside::start(beats, &mut tasks, lease.beat * PATIENCE)?;
        let registration = Registration::new(aside.clone(), settings.application().to_owned(), lease.lease);
        let registration = Arc::new(registration);
        registration.announce().await?;
        let met = registration.meet().await?;
        let (in_hand, found, due) = (Arc::<InHand>::default(), Arc::<FoundAccounts>::default(), Arc::<Bell>::default());
        let beats = aside.store().clone();
        let heartbeat = Heartbeat::new(lease, registration.clone(), met, in_hand.clone(), found.clone(), beats);
        let heartbeat = aside.spawn(&mut tasks, heartbeat.run());
        tasks.spawn(alarm::run(store.clone(), registration.clone(), due.clone()));
        let maintenance = tasks.spawn(maintenance::run(aside.clone(), store.clone(), registration.clone()));
        let listener = Listener::start(&aside, settings, ping, registration.owners(), store.telemetry().clone());
        let sweeper = Sweeper::start(store.clone(), due.clone());
        Ok(Self {
            registration,
            store,
            in_hand,
            found,
            isolation: Isolation::default(),
            listener,
            sweeper,
            due,
            started: Instant::now(),
            maintenance,
            heartbeat,
            _alive: alive,
            _tasks: tasks,
        })
    }

    /// Where bells arrive and idle latches are kept.
    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Whether its lease is renewed.
    pub(crate) fn is_beating(&self) -> bool {
        self.registration.is_beating()
    }

    /// How long it has been running.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The sweep of a parked consumer.
    pub(crate) fn sweeper(&self) -> &Sweeper {
        &self.sweeper
    }

    /// The current owner; it changes when the lease was lost.
    pub(crate) fn owners(&self) -> watch::Receiver<Arc<str>> {
        self.registration.owners()
    }

    /// Keeps suspects apart from each other.
    pub(crate) fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// What this process has in hand.
    pub(crate) fn in_hand(&self) -> &Arc<InHand> {
        &self.in_hand
    }

    /// How claimed messages were found; the heartbeat tells the database now and then.
    pub(crate) fn found(&self) -> &FoundAccounts {
        &self.found
    }

    /// Adds a consumer: hangs its bell, tells the database what it accepts. Look into the table after this returns.
    pub(crate) async fn join(
        &self,
        target: &str,
        record_types: Option<&[String]>,
        capacity: usize,
        holds: bool,
        bell: &Arc<Bell>,
    ) -> Result<()> {
        let (channel, due_channel) = self.store.channels(target).await?;
        self.registration.accept(target, record_types, capacity, holds);
        self.registration.announce().await?;
        self.listener.subscribe(vec![channel], bell).await;
        self.listener.subscribe(vec![due_channel], &self.due).await;
        self.due.ring();
        Ok(())
    }

    /// Removes a consumer.
    pub(crate) async fn leave(&self, target: &str, capacity: usize, bell: &Arc<Bell>) {
        self.listener.unsubscribe(bell);
        self.registration.leave(target, capacity);
    }

    /// Gives back what it still owns and takes it off the list; returns how many messages that were.
    pub(crate) async fn deregister(&self) -> Result<usize> {
        // Before it is handed over: the next round would take it back. And the next beat would find the lease lost, and
        // register anew: a dropped consumer that is not over yet would claim again what was given back.
        self.maintenance.abort();
        self.heartbeat.abort();
        self.found.flush(&self.store).await;
        // What a claim under way takes is given back with the rest: nothing else here would, and it would be a suspect when
        // others find it. After it there is no claim that the database does not refuse.
        let _no_claims = self.in_hand.between_claims(CLAIMS_END_WITHIN).await;
        self.store.deregister(&self.registration.owner()).await
    }
}
