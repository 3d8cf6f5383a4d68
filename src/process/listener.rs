//! The listener: one LISTEN connection per process, for all its consumers.
//!
//! A bell is a hint: it sets a flag ([`Bell`]) and the consumer's loop decides. The connection's messages are polled in
//! one place that never waits for anything else, because a listener that stops reading pins the vacuum horizon of the
//! whole cluster. Its liveness is proved by a notification to itself: neither `select 1` nor `pg_listening_channels()`
//! shows that notifications arrive (behind a transaction pooler both answer happily). That it has a session to itself is
//! proved once, before anything is left in it, by a notification from another session.
//!
//! Publishers ring only while somebody is *parked*: holds the target's idle latch, a shared session lock, on this
//! connection (`integration.park`). A consumer parks when it has run out of work and unparks when work keeps coming.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::info;

use super::{
    aside::Aside,
    bell::{Bell, Bells},
    session::{Command, Parked, PingConfig, Session},
};
use crate::{
    connection::Settings,
    error::Error,
    outage::Outage,
    store::Store,
    telemetry::{Event, Telemetry},
};

const RECONNECT_BASE: Duration = Duration::from_millis(50);
const RECONNECT_CAP: Duration = Duration::from_secs(5);

/// The handle; dropping it ends the listener.
#[derive(Debug)]
pub(crate) struct Listener {
    commands: mpsc::UnboundedSender<Command>,
    bells: Arc<Bells>,
    is_up: watch::Receiver<bool>,
    session: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Listener {
    /// Starts listening in the background. `owners` names the session lock to hold; it changes when the process lost its
    /// lease.
    pub(super) fn start(
        aside: &Aside,
        settings: Settings,
        ping: PingConfig,
        owners: watch::Receiver<Arc<str>>,
        telemetry: Telemetry,
    ) -> Self {
        let (line, mut listener) = Line::new(settings, aside.store().clone(), ping, Some(owners), telemetry);
        aside.spawn(&mut listener._task, line.run());
        listener
    }

    /// For who waits for answers: on the caller's runtime, with no lock that would tell of a death, and told to no observer.
    pub(super) fn of_requesters(store: Store, settings: Settings, ping: PingConfig) -> Self {
        let (line, mut listener) = Line::new(settings, store, ping, None, Telemetry::default());
        listener._task.spawn(line.run());
        listener
    }

    /// Hangs `bell` on the channels. Returns once LISTEN is in force, so that a look into the table afterwards misses
    /// nothing; while the listener is down it returns at once, and the bell is rung when it is up again.
    pub(crate) async fn subscribe(&self, channels: Vec<String>, bell: &Arc<Bell>) {
        self.bells.hang(&channels, bell);
        let (done, in_force) = oneshot::channel();
        if self.commands.send(Command::Subscribe { channels, done }).is_ok() {
            let _ = in_force.await;
        }
    }

    /// Takes the bell off; channels nobody waits for are forgotten at the next reconnect (LISTEN costs nothing).
    pub(crate) fn unsubscribe(&self, bell: &Arc<Bell>) {
        self.bells.take_off(bell);
    }

    /// Takes the target's idle latch; `None` while the listener is down or when the latch cannot be had.
    pub(crate) async fn park(&self, target: &str) -> Option<Parked> {
        let (parked, answer) = oneshot::channel();
        self.commands.send(Command::Park { target: target.to_owned(), parked }).ok()?;
        answer.await.ok().flatten()
    }

    /// Gives a latch back, without waiting for it. One of an earlier session went with it.
    pub(crate) fn unpark(&self, target: &str, parked: Parked) {
        let _ = self.commands.send(Command::Unpark { target: target.to_owned(), session: parked.session });
    }

    /// Counts the listener's connections; a latch is worth nothing once this has moved on.
    pub(crate) fn session(&self) -> u64 {
        self.session.load(Ordering::Acquire)
    }

    /// Whether bells arrive at the moment: it is connected, and a notification to itself has arrived.
    pub(crate) fn is_up(&self) -> bool {
        *self.is_up.borrow()
    }
}

/// The listener's task: one session after the other.
struct Line {
    settings: Settings,
    /// Another session than the listener's.
    beats: Store,
    ping: PingConfig,
    bells: Arc<Bells>,
    inbox: mpsc::UnboundedReceiver<Command>,
    owners: Option<watch::Receiver<Arc<str>>>,
    state: State,
    /// Odd while there is a session, whose number it is.
    session: Arc<AtomicU64>,
}

impl Line {
    fn new(
        settings: Settings,
        beats: Store,
        ping: PingConfig,
        owners: Option<watch::Receiver<Arc<str>>>,
        telemetry: Telemetry,
    ) -> (Self, Listener) {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (tell, is_up) = watch::channel(false);
        let bells = Arc::new(Bells::default());
        let session = Arc::new(AtomicU64::new(0));
        let state = State::new(tell, telemetry);
        let listener =
            Listener { commands, bells: bells.clone(), is_up, session: session.clone(), _task: JoinSet::new() };
        (Self { settings, beats, ping, bells, inbox, owners, state, session }, listener)
    }

    async fn run(mut self) {
        loop {
            let error = match self.settings.connect().await {
                Ok((client, messages)) => {
                    let number = self.session.fetch_add(1, Ordering::AcqRel) + 1;
                    let schema = self.settings.schema();
                    let (bells, beats) = (&self.bells, &self.beats);
                    let session = Session::new(client, schema, self.ping, number, bells, beats, self.owners.clone());
                    let error = session.run(messages, &mut self.inbox, || self.state.up()).await;
                    // Latches of that session are gone; whoever looks now must not take them for held.
                    self.session.fetch_add(1, Ordering::AcqRel);
                    error
                }
                Err(error) => error,
            };
            if self.inbox.is_closed() {
                return;
            }
            let until = Instant::now() + self.state.down(&error);
            // Nobody must wait for the server meanwhile: LISTEN follows with the next session, and parking is refused.
            while let Ok(Some(command)) = timeout_at(until, self.inbox.recv()).await {
                match command {
                    Command::Subscribe { done, .. } => drop(done.send(())),
                    Command::Park { parked, .. } => drop(parked.send(None)),
                    Command::Unpark { .. } => {}
                }
            }
            sleep_until(until).await;
        }
    }
}

/// Whether the listener hears, told to the process, to the observer and to the log.
struct State {
    is_up: watch::Sender<bool>,
    telemetry: Telemetry,
    outage: Outage,
    /// Sessions that listened.
    sessions: u64,
}

impl State {
    fn new(is_up: watch::Sender<bool>, telemetry: Telemetry) -> Self {
        let outage = Outage::new("the listener is down: consumers sweep until it is back", "listening")
            .pauses(RECONNECT_BASE, RECONNECT_CAP);
        Self { is_up, telemetry, outage, sessions: 0 }
    }

    fn up(&mut self) {
        self.sessions += 1;
        self.is_up.send_replace(true);
        self.telemetry.tell(Event::Listening { up: true, sessions: self.sessions });
        if self.outage.failures() == 0 {
            info!("listening");
        }
        self.outage.over();
    }

    /// Returns how long to wait before connecting anew.
    fn down(&mut self, error: &Error) -> Duration {
        if self.is_up.send_replace(false) {
            self.telemetry.tell(Event::Listening { up: false, sessions: self.sessions });
        }
        self.outage.failed(error)
    }
}
