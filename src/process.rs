//! This process as the database knows it: its incarnation and lease, its heartbeat, its share of rescue and maintenance,
//! and the alarm clock for scheduled messages. One per broker, shared by all its consumers.

mod isolation;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use isolation::Isolation;
use serde_json::json;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    backoff,
    connection::Settings,
    error::{Error, ErrorKind, Result},
    held::Held,
    maintenance,
    message::Found,
    store::{Registration, Store},
    sweep::Sweeper,
    telemetry::Event,
    wake::{Bell, Listener, ListenerState, Parked, PingConfig},
    wakeups::Wakeups,
};

/// Full rescues (leases of single claims, strays) and alarm checks happen at least this often even if nothing rings.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// Longest sleep of the alarm clock; a message due later is found by the next look.
const ALARM_MAX: Duration = Duration::from_secs(3600);
const RETRY_BASE: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// How the process keeps its lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseConfig {
    pub(crate) lease: Duration,
    pub(crate) beat: Duration,
}

/// What one target's consumers in this process accept.
#[derive(Clone, Debug)]
struct Accepts {
    record_types: Option<Vec<String>>,
    capacity: usize,
    consumers: usize,
    /// One of them works in transactions.
    in_transaction: bool,
}

/// The running process. Dropping it ends its tasks; what it held is rescued by others.
#[derive(Debug)]
pub(crate) struct Process {
    shared: Arc<Shared>,
    listener: Listener,
    sweeper: Sweeper,
    started: Instant,
    maintenance: AbortHandle,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    /// One connection for the heartbeat and what goes with it.
    beats: Store,
    config: LeaseConfig,
    host: String,
    application: String,
    incarnation: watch::Sender<Arc<str>>,
    accepts: Mutex<BTreeMap<String, Accepts>>,
    /// Rung when the next scheduled message may be due earlier than the alarm is set for.
    due: Arc<Bell>,
    isolation: Isolation,
    held: Arc<Held>,
    wakeups: Wakeups,
}

impl Process {
    /// Registers a fresh incarnation and starts heartbeat, listener and alarm clock.
    pub(crate) async fn start(
        store: Store,
        beats: Store,
        settings: Settings,
        config: LeaseConfig,
        ping: PingConfig,
    ) -> Result<Self> {
        let host = host_name();
        let (incarnation, watching) = watch::channel(new_incarnation(&host));
        let shared = Arc::new(Shared {
            store,
            beats,
            config,
            host,
            application: settings.application().to_owned(),
            incarnation,
            accepts: Mutex::default(),
            due: Arc::default(),
            isolation: Isolation::default(),
            held: Arc::default(),
            wakeups: Wakeups::default(),
        });
        let current = shared.incarnation.borrow().clone();
        shared.register(&current).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(beat_for_ever(shared.clone()));
        tasks.spawn(watch_the_clock(shared.clone()));
        let incarnation = shared.incarnation.subscribe();
        let maintenance = tasks.spawn(maintenance::run(shared.beats.clone(), shared.store.clone(), incarnation));
        let telemetry = shared.store.telemetry().clone();
        let sweeper = Sweeper::start(shared.store.clone(), shared.due.clone());
        Ok(Self {
            listener: Listener::start(settings, ping, watching, telemetry),
            sweeper,
            started: Instant::now(),
            maintenance,
            shared,
            _tasks: tasks,
        })
    }

    /// Takes the target's idle latch, so that publishers ring.
    pub(crate) async fn park(&self, target: &str) -> Option<Parked> {
        self.listener.park(target).await
    }

    /// Gives it back.
    pub(crate) fn unpark(&self, target: &str, parked: Parked) {
        self.listener.unpark(target, parked);
    }

    /// Latches of other sessions than this one are void.
    pub(crate) fn listener_session(&self) -> u64 {
        self.listener.session()
    }

    /// Whether bells arrive at the moment.
    pub(crate) fn is_listening(&self) -> bool {
        *self.listener.state().borrow() == ListenerState::Listening
    }

    /// How long it has been running.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The sweep of a parked consumer.
    pub(crate) fn sweeper(&self) -> &Sweeper {
        &self.sweeper
    }

    /// The current incarnation; it changes when the lease was lost.
    pub(crate) fn incarnation(&self) -> watch::Receiver<Arc<str>> {
        self.shared.incarnation.subscribe()
    }

    /// Who runs handlers beside others, and who alone.
    pub(crate) fn isolation(&self) -> &Isolation {
        &self.shared.isolation
    }

    /// What this process holds.
    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.shared.held
    }

    /// Notes how claimed messages were found; the heartbeat tells the database now and then.
    pub(crate) fn found(&self, target: &str, found: Found, messages: usize) {
        self.shared.wakeups.add(target, found, messages);
    }

    /// Adds a consumer: hangs its bell, tells the database what it accepts. Look into the table after this returns.
    pub(crate) async fn join(
        &self,
        target: &str,
        record_types: Option<&[String]>,
        capacity: usize,
        in_transaction: bool,
        bell: &Arc<Bell>,
    ) -> Result<()> {
        let (channel, due_channel) = self.shared.store.channels(target).await?;
        self.shared.with_accepts(|accepts| {
            let entry = accepts.entry(target.to_owned()).or_insert_with(|| Accepts {
                record_types: Some(Vec::new()),
                capacity: 0,
                consumers: 0,
                in_transaction: false,
            });
            entry.record_types = match (entry.record_types.take(), record_types) {
                (Some(mut known), Some(more)) => {
                    known.extend(more.iter().cloned());
                    Some(known)
                }
                _ => None,
            };
            entry.capacity += capacity;
            entry.consumers += 1;
            entry.in_transaction |= in_transaction;
        });
        let current = self.shared.incarnation.borrow().clone();
        self.shared.register(&current).await?;
        self.listener.subscribe(vec![channel], bell).await;
        self.listener.subscribe(vec![due_channel], &self.shared.due).await;
        self.shared.due.ring();
        Ok(())
    }

    /// Removes a consumer.
    pub(crate) async fn leave(&self, target: &str, capacity: usize, bell: &Arc<Bell>) {
        self.listener.unsubscribe(bell);
        self.shared.with_accepts(|accepts| {
            if let Some(entry) = accepts.get_mut(target) {
                entry.capacity -= capacity;
                entry.consumers -= 1;
                if entry.consumers == 0 {
                    accepts.remove(target);
                }
            }
        });
    }

    /// Gives back what is still held and leaves the list of consumers.
    pub(crate) async fn deregister(&self) -> Result<usize> {
        let current = self.shared.incarnation.borrow().clone();
        // Before it is handed over: the next round would take it back.
        self.maintenance.abort();
        self.shared.wakeups.flush(&self.shared.store).await;
        self.shared.store.deregister(&current).await
    }
}

impl Shared {
    fn with_accepts<T>(&self, f: impl FnOnce(&mut BTreeMap<String, Accepts>) -> T) -> T {
        f(&mut self.accepts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn register(&self, incarnation: &str) -> Result<()> {
        let targets = self.with_accepts(|accepts| {
            let entries = accepts.iter().map(|(target, accepts)| {
                (target.clone(), json!({ "types": accepts.record_types, "capacity": accepts.capacity, "in_transaction": accepts.in_transaction }))
            });
            serde_json::Value::Object(entries.collect()).to_string()
        });
        let registration = Registration {
            incarnation,
            host: &self.host,
            application: &self.application,
            targets: &targets,
            lease: self.config.lease,
        };
        self.beats.register(&registration).await
    }

    fn targets(&self) -> Vec<String> {
        self.with_accepts(|accepts| accepts.keys().cloned().collect())
    }

    /// The lease is gone: everything held belongs to somebody else now. Consumers see the new incarnation and stop what
    /// they were running for the old one.
    async fn start_over(&self) -> Result<()> {
        let fresh = new_incarnation(&self.host);
        warn!(lost = %*self.incarnation.borrow(), %fresh, "the lease was lost: handlers are stopped, their messages belong to others");
        self.incarnation.send_replace(fresh.clone());
        self.held.clear();
        self.register(&fresh).await?;
        // Again, now that the row exists: the listener takes the session lock of a registered incarnation.
        self.incarnation.send_replace(fresh);
        Ok(())
    }
}

/// Renews the lease every beat, rescues who stopped beating, and starts over when the lease was lost: because the
/// database says so, or because it could not be reached for as long as the lease lasts.
async fn beat_for_ever(shared: Arc<Shared>) {
    let LeaseConfig { lease, beat } = shared.config;
    let mut renewed = Instant::now();
    let mut failures = 0u32;
    let mut next_full_rescue = Instant::now();
    let mut registered = true;
    loop {
        let wait = match failures {
            0 => backoff::jittered(beat, rand::random()),
            n => backoff::delay(RETRY_BASE, beat.min(RETRY_CAP), n, rand::random()),
        };
        tokio::time::sleep(wait).await;
        let asked = Instant::now();
        let incarnation = shared.incarnation.borrow().clone();
        let answer = timeout(lease / 2, async {
            if !registered {
                shared.register(&incarnation).await?;
                shared.incarnation.send_replace(incarnation.clone());
            }
            shared.beats.beat(&incarnation, lease).await
        })
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "heartbeat: no answer")));
        match answer {
            Ok(true) => {
                if failures > 0 {
                    info!(failures, "the database is back");
                }
                (renewed, failures, registered) = (asked, 0, true);
            }
            Ok(false) => {
                registered = shared.start_over().await.is_ok();
                renewed = Instant::now();
                continue;
            }
            Err(error) => {
                if failures == 0 {
                    warn!(?error, "the heartbeat did not get through; trying again until it does");
                }
                failures += 1;
                if registered && renewed.elapsed() >= lease {
                    registered = shared.start_over().await.is_ok();
                }
                continue;
            }
        }
        let full = asked >= next_full_rescue;
        match shared.beats.rescue(full).await {
            Ok(0) => {}
            Ok(count) => {
                info!(count, "rescued messages of dead consumers");
                shared.store.telemetry().tell(Event::Rescued { messages: count });
            }
            Err(error) => debug!(?error, "rescue failed; the next beat tries again"),
        }
        if full {
            if let Err(error) = shared.held.return_strays_if_idle(&shared.beats, &incarnation).await {
                debug!(?error, "looking for strays failed; the next full rescue tries again");
            }
            shared.wakeups.flush(&shared.beats).await;
            next_full_rescue = asked + backoff::jittered(HOUSEKEEPING, rand::random());
        }
    }
}

/// Sleeps until the next scheduled message of our targets is due and promotes it. Its bell tells when that changed.
async fn watch_the_clock(shared: Arc<Shared>) {
    let mut failures = 0u32;
    loop {
        let targets = shared.targets();
        let look = async {
            if targets.is_empty() {
                return Ok(None);
            }
            shared.store.promote(&targets).await?;
            shared.store.next_due(&targets).await
        };
        let wait = match look.await {
            Ok(due_in) => {
                failures = 0;
                due_in.unwrap_or(ALARM_MAX).min(ALARM_MAX)
            }
            Err(error) => {
                if failures == 0 {
                    warn!(?error, "scheduled messages could not be looked for; trying again until they can");
                }
                failures += 1;
                backoff::delay(RETRY_BASE, RETRY_CAP, failures, rand::random())
            }
        };
        let until = Instant::now() + wait;
        tokio::select! {
            () = shared.due.rung() => {}
            () = sleep_until(until) => {}
        }
    }
}

pub(crate) fn new_incarnation(host: &str) -> Arc<str> {
    format!("{}-{}-{:016x}", host.chars().take(60).collect::<String>(), std::process::id(), rand::random::<u64>())
        .into()
}

pub(crate) fn host_name() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
