//! The listener: one LISTEN connection per process, for all its consumers.
//!
//! A bell is a hint: it sets a flag ([`Bell`]) and the consumer's loop decides. The connection's messages are polled in
//! one place that never waits for anything else, because a listener that stops reading pins the vacuum horizon of the
//! whole cluster. Its liveness is proved by a notification to itself: neither `select 1` nor `pg_listening_channels()`
//! shows that notifications arrive (behind a transaction pooler both answer happily).
//!
//! Publishers ring only while somebody is *parked*: holds the target's idle latch, a shared session lock, on this
//! connection (`integration.park`). A consumer parks when it has run out of work and unparks when work keeps coming.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_postgres::{
    AsyncMessage, Client,
    types::{ToSql, Type},
};
use tracing::{debug, info, warn};

use crate::{
    backoff,
    connection::{self, Messages, Settings},
    error::{Error, ErrorKind, Result},
    schema::Schema,
    telemetry::{Event, Telemetry},
};

const RECONNECT_BASE: Duration = Duration::from_millis(50);
const RECONNECT_CAP: Duration = Duration::from_secs(5);

/// A dead client's session, and with it the session lock, must go within seconds and not after two hours. Ordinary user
/// settings; without effect on a unix socket.
const SESSION_SETTINGS: &str = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; \
    set tcp_keepalives_count = 3; set tcp_user_timeout = 20000; set idle_in_transaction_session_timeout = 0; \
    set idle_session_timeout = 0";

/// How often the listener notifies itself, and how long that may take. A statement on its session may take twice as long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PingConfig {
    pub(crate) every: Duration,
    pub(crate) within: Duration,
}

/// What a consumer waits on. Rings are merged: any number of them wakes one look.
#[derive(Debug, Default)]
pub(crate) struct Bell(Notify);

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn rung(&self) {
        self.0.notified().await;
    }
}

/// What the listener can do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerState {
    /// Not connected: consumers sweep.
    Down,
    /// Connected, and a notification to itself has arrived.
    Listening,
}

/// The handle; dropping it ends the listener.
#[derive(Debug)]
pub(crate) struct Listener {
    commands: mpsc::UnboundedSender<Command>,
    bells: Arc<Bells>,
    state: watch::Receiver<ListenerState>,
    session: Arc<AtomicU64>,
    _task: tokio::task::JoinSet<()>,
}

#[derive(Debug)]
enum Command {
    Subscribe { channels: Vec<String>, done: oneshot::Sender<()> },
    Park { target: String, parked: oneshot::Sender<Option<Parked>> },
    Unpark { target: String, session: u64 },
}

/// A latch that was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parked {
    /// Trust in bells after a look with no running transaction older than this.
    pub(crate) barrier: i64,
    /// The session that holds it; void once [`Listener::session`] says another.
    pub(crate) session: u64,
}

/// Which bells hang on which channel. A std mutex: held for a look-up, never across an await.
#[derive(Debug, Default)]
struct Bells(Mutex<HashMap<String, Vec<Arc<Bell>>>>);

impl Bells {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<String, Vec<Arc<Bell>>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ring(&self, channel: &str) {
        self.with(|bells| bells.get(channel).into_iter().flatten().for_each(|bell| bell.ring()));
    }

    fn ring_all(&self) {
        self.with(|bells| bells.values().flatten().for_each(|bell| bell.ring()));
    }

    fn channels(&self) -> Vec<String> {
        self.with(|bells| bells.keys().cloned().collect())
    }
}

impl Listener {
    /// Starts listening in the background. `incarnation` names the session lock to hold; it changes when the process
    /// lost its lease.
    pub(crate) fn start(
        settings: Settings,
        ping: PingConfig,
        incarnation: watch::Receiver<Arc<str>>,
        telemetry: Telemetry,
    ) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (report, state) = watch::channel(ListenerState::Down);
        let bells = Arc::new(Bells::default());
        let session = Arc::new(AtomicU64::new(0));
        let mut task = tokio::task::JoinSet::new();
        let report = Report { state: report, telemetry, sessions: 0 };
        task.spawn(listen_for_ever(settings, ping, bells.clone(), inbox, incarnation, report, session.clone()));
        Self { commands, bells, state, session, _task: task }
    }

    /// Hangs `bell` on the channels. Returns once LISTEN is in force, so that a look into the table afterwards misses
    /// nothing; while the listener is down it returns at once, and the bell is rung when it is up again.
    pub(crate) async fn subscribe(&self, channels: Vec<String>, bell: &Arc<Bell>) {
        self.bells.with(|bells| {
            for channel in &channels {
                let hung = bells.entry(channel.clone()).or_default();
                if !hung.iter().any(|other| Arc::ptr_eq(other, bell)) {
                    hung.push(bell.clone());
                }
            }
        });
        let (done, in_force) = oneshot::channel();
        if self.commands.send(Command::Subscribe { channels, done }).is_ok() {
            let _ = in_force.await;
        }
    }

    /// Takes the bell off; channels nobody waits for are forgotten at the next reconnect (LISTEN costs nothing).
    pub(crate) fn unsubscribe(&self, bell: &Arc<Bell>) {
        self.bells.with(|bells| {
            bells.retain(|_, hung| {
                hung.retain(|other| !Arc::ptr_eq(other, bell));
                !hung.is_empty()
            });
        });
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

    /// Changes as the listener goes up and down.
    pub(crate) fn state(&self) -> watch::Receiver<ListenerState> {
        self.state.clone()
    }
}

async fn listen_for_ever(
    settings: Settings,
    ping: PingConfig,
    bells: Arc<Bells>,
    mut inbox: mpsc::UnboundedReceiver<Command>,
    incarnation: watch::Receiver<Arc<str>>,
    mut report: Report,
    count: Arc<AtomicU64>,
) {
    let mut failures = 0u32;
    let mut said = false;
    loop {
        let error = match settings.connect().await {
            Ok((client, messages)) => {
                let number = count.fetch_add(1, Ordering::AcqRel) + 1;
                let session = Session {
                    client,
                    schema: settings.schema(),
                    ping,
                    number,
                    bells: &bells,
                    incarnation: incarnation.clone(),
                    held: None,
                    report: &mut report,
                };
                let error = session.run(messages, &mut inbox).await;
                // Latches of that session are gone; whoever looks now must not take them for held.
                count.fetch_add(1, Ordering::AcqRel);
                if report.down() {
                    (failures, said) = (0, false);
                }
                error
            }
            Err(error) => error,
        };
        if inbox.is_closed() {
            return;
        }
        if !said {
            warn!(error = ?error, "the listener is down: consumers sweep until it is back");
            said = true;
        }
        let wait = backoff::delay(RECONNECT_BASE, RECONNECT_CAP, failures, rand::random());
        failures = failures.saturating_add(1);
        let until = Instant::now() + wait;
        // Nobody must wait for the server meanwhile: LISTEN follows with the next session, and parking is refused.
        while let Ok(Some(command)) = tokio::time::timeout_at(until, inbox.recv()).await {
            match command {
                Command::Subscribe { done, .. } => drop(done.send(())),
                Command::Park { parked, .. } => drop(parked.send(None)),
                Command::Unpark { .. } => {}
            }
        }
        tokio::time::sleep_until(until).await;
    }
}

/// Says what the listener can do: to the process, and to the observer.
struct Report {
    state: watch::Sender<ListenerState>,
    telemetry: Telemetry,
    /// Sessions that listened.
    sessions: u64,
}

impl Report {
    fn up(&mut self) {
        self.sessions += 1;
        self.state.send_replace(ListenerState::Listening);
        self.telemetry.tell(Event::Listening { up: true, sessions: self.sessions });
    }

    /// Returns whether it was up.
    fn down(&self) -> bool {
        let was_up = self.state.send_replace(ListenerState::Down) == ListenerState::Listening;
        if was_up {
            self.telemetry.tell(Event::Listening { up: false, sessions: self.sessions });
        }
        was_up
    }
}

/// One connection's life.
struct Session<'a> {
    client: Client,
    schema: &'a Schema,
    ping: PingConfig,
    number: u64,
    bells: &'a Bells,
    incarnation: watch::Receiver<Arc<str>>,
    /// The incarnation whose session lock is held.
    held: Option<Arc<str>>,
    report: &'a mut Report,
}

impl Session<'_> {
    /// Runs until the connection fails or stops delivering; returns why.
    async fn run(mut self, mut messages: Messages, inbox: &mut mpsc::UnboundedReceiver<Command>) -> Error {
        let ping_channel = format!("doorbell_ping_{:016x}", rand::random::<u64>());
        let pong = Notify::new();
        let bells = self.bells;
        let deliver = async {
            while let Some(message) = messages.next().await {
                match message {
                    Ok(AsyncMessage::Notification(n)) if n.channel() == ping_channel => pong.notify_one(),
                    Ok(AsyncMessage::Notification(n)) => bells.ring(n.channel()),
                    Ok(other) => connection::log(&other),
                    Err(error) => return Error::from(error).context("listen"),
                }
            }
            Error::new(ErrorKind::Connect, "listen: the server closed the connection")
        };
        tokio::select! {
            error = deliver => error,
            result = self.serve(&ping_channel, &pong, inbox) => match result {
                Ok(never) => match never {},
                Err(error) => error,
            },
        }
    }

    /// LISTEN first, then ring everything (what was announced while nobody listened must be looked for), then keep
    /// proving that notifications arrive.
    async fn serve(
        &mut self,
        ping_channel: &str,
        pong: &Notify,
        inbox: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<std::convert::Infallible> {
        // Before 14.x some of these do not exist everywhere; none is needed for correctness.
        if let Err(error) = self.statement(SESSION_SETTINGS).await {
            debug!(?error, "session settings not accepted");
        }
        let mut channels = self.bells.channels();
        channels.push(ping_channel.to_owned());
        self.listen(&channels).await?;
        self.hold_session_lock().await?;
        self.ping(ping_channel, pong).await?;
        self.report.up();
        self.bells.ring_all();
        info!(channels = channels.len() - 1, "listening");
        let mut next_ping = Instant::now() + backoff::jittered(self.ping.every, rand::random());
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Subscribe { channels, done }) => {
                        self.listen(&channels).await?;
                        let _ = done.send(());
                    }
                    Some(Command::Park { target, parked }) => {
                        let _ = parked.send(self.park(&target).await?);
                    }
                    Some(Command::Unpark { target, session }) if session == self.number => self.unpark(&target).await?,
                    Some(Command::Unpark { .. }) => {}
                    None => return Err(Error::new(ErrorKind::Closed, "the broker was closed")),
                },
                changed = self.incarnation.changed() => match changed {
                    Ok(()) => self.hold_session_lock().await?,
                    Err(_) => return Err(Error::new(ErrorKind::Closed, "the broker was closed")),
                },
                () = tokio::time::sleep_until(next_ping) => {
                    self.ping(ping_channel, pong).await?;
                    next_ping = Instant::now() + backoff::jittered(self.ping.every, rand::random());
                }
            }
        }
    }

    /// Channel names come from `integration.channel()` or from us: lower-case letters, digits, underscores.
    async fn listen(&self, channels: &[String]) -> Result<()> {
        let sql: String = channels.iter().map(|channel| format!("listen \"{channel}\";")).collect();
        self.statement(&sql).await
    }

    async fn ping(&self, channel: &str, pong: &Notify) -> Result<()> {
        self.statement(&format!("notify \"{channel}\"")).await?;
        timeout(self.ping.within, pong.notified()).await.map_err(|_| {
            Error::new(
                ErrorKind::Timeout,
                "a notification to itself did not arrive: is a transaction pooler between the consumer and PostgreSQL? \
                 Give consumers a direct connection",
            )
        })
    }

    async fn park(&self, target: &str) -> Result<Option<Parked>> {
        let row = self.row("select integration.park($1)", target).await?;
        let barrier: Option<i64> = row.try_get(0)?;
        Ok(barrier.map(|barrier| Parked { barrier, session: self.number }))
    }

    async fn unpark(&self, target: &str) -> Result<()> {
        self.row("select integration.unpark($1)", target).await.map(drop)
    }

    /// The lock that frees at death. Failing to get it costs speed of rescue, nothing else.
    async fn hold_session_lock(&mut self) -> Result<()> {
        let incarnation = self.incarnation.borrow_and_update().clone();
        if let Some(before) = self.held.take().filter(|before| *before != incarnation) {
            self.row("select integration.release_session_lock($1)", &before).await?;
        }
        let held: bool = self.row("select integration.hold_session_lock($1)", &incarnation).await?.try_get(0)?;
        if !held {
            debug!(%incarnation, "the session lock is not held: a death of this process is noticed by its lease alone");
        }
        self.held = Some(incarnation);
        Ok(())
    }

    /// One statement with one text parameter and one row.
    async fn row(&self, sql: &str, parameter: &str) -> Result<tokio_postgres::Row> {
        let typed = [(&parameter as &(dyn ToSql + Sync), Type::TEXT)];
        timeout(self.ping.within * 2, self.client.query_typed(&self.schema.sql(sql), &typed))
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, "the listening session did not answer"))?
            .map_err(|error| Error::from(error).context("listen"))?
            .pop()
            .ok_or_else(|| Error::new(ErrorKind::Schema, "a function of the listener did not answer with one row"))
    }

    async fn statement(&self, sql: &str) -> Result<()> {
        timeout(self.ping.within * 2, self.client.batch_execute(sql))
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, "the listening session did not answer"))?
            .map_err(|error| Error::from(error).context("listen"))
    }
}
