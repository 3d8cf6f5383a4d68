//! One session of the listener: LISTEN, the latches, the lock that frees at death, and the proof that notifications arrive.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::StreamExt;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_postgres::{
    AsyncMessage, Client,
    types::{ToSql, Type},
};
use tracing::debug;

use super::{bell::Bells, proof};
use crate::{
    backoff,
    connection::{self, Messages},
    error::{Error, ErrorKind, Result},
    schema::Schema,
    store::Store,
};

/// A dead client's session, and with it the session lock, must go within seconds and not after two hours. Ordinary user
/// settings; without effect on a unix socket.
const SESSION_SETTINGS: &str = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; \
    set tcp_keepalives_count = 3; set tcp_user_timeout = 20000; set idle_in_transaction_session_timeout = 0; \
    set idle_session_timeout = 0; set default_transaction_isolation = 'read committed'";
/// A process of the server that waits for a lock does not look at its socket.
const LOOK_AT_SOCKETS: &str = "set client_connection_check_interval = 2000";

/// How often the listener notifies itself, and how long that may take. A statement on its session may take twice as long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PingConfig {
    pub(crate) every: Duration,
    pub(crate) within: Duration,
}

#[derive(Debug)]
pub(super) enum Command {
    Subscribe { channels: Vec<String>, done: oneshot::Sender<()> },
    Park { target: String, parked: oneshot::Sender<Option<Parked>> },
    Unpark { target: String, session: u64 },
}

/// A latch that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parked {
    /// Trust in bells after a look with no running transaction older than this.
    pub(crate) barrier: i64,
    /// The session that holds it; void once the listener counts another.
    pub(crate) session: u64,
}

/// One connection's life.
pub(super) struct Session<'a> {
    client: Client,
    schema: &'a Schema,
    ping: PingConfig,
    number: u64,
    bells: &'a Bells,
    /// Whose connection is another one.
    beats: &'a Store,
    /// Of the lock that frees at death; `None`: there is none.
    owners: Option<watch::Receiver<Arc<str>>>,
    /// The owner whose lock is held.
    locked: Option<Arc<str>>,
}

impl<'a> Session<'a> {
    /// On a fresh connection.
    pub(super) fn new(
        client: Client,
        schema: &'a Schema,
        ping: PingConfig,
        number: u64,
        bells: &'a Bells,
        beats: &'a Store,
        owners: Option<watch::Receiver<Arc<str>>>,
    ) -> Self {
        Self { client, schema, ping, number, bells, beats, owners, locked: None }
    }

    /// Runs until the connection fails or stops delivering; returns why. `up` is called once bells arrive.
    pub(super) async fn run(
        mut self,
        mut messages: Messages,
        inbox: &mut mpsc::UnboundedReceiver<Command>,
        up: impl FnOnce(),
    ) -> Error {
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
            result = self.serve(&ping_channel, &pong, inbox, up) => match result {
                Ok(never) => match never {},
                Err(error) => error,
            },
        }
    }

    /// The proof first; then LISTEN, then ring everything (what was announced while nobody listened must be looked for), then keep
    /// proving that notifications arrive.
    async fn serve(
        &mut self,
        ping_channel: &str,
        pong: &Notify,
        inbox: &mut mpsc::UnboundedReceiver<Command>,
        up: impl FnOnce(),
    ) -> Result<Infallible> {
        proof::own_session(&self.client, self.beats, ping_channel, pong, self.ping.within).await?;
        // Before 14.x some of these do not exist everywhere; none is needed for correctness.
        let (locks, statements) = (self.ping.within.as_millis().max(1), (self.ping.within * 2).as_millis().max(1));
        let limits = format!("set lock_timeout = {locks}; set statement_timeout = {statements}");
        for settings in [SESSION_SETTINGS, LOOK_AT_SOCKETS, &limits] {
            if let Err(error) = self.statement(settings).await {
                debug!(?error, "session settings not accepted");
            }
        }
        self.listen(&self.bells.channels()).await?;
        self.hold_session_lock().await?;
        up();
        self.bells.ring_all();
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
                changed = changed(&mut self.owners) => match changed {
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
        proof::heard(pong, self.ping.within).await
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
        let Some(owners) = &mut self.owners else {
            return Ok(());
        };
        let owner = owners.borrow_and_update().clone();
        if let Some(before) = self.locked.take().filter(|before| *before != owner) {
            self.row("select integration.release_session_lock($1)", &before).await?;
        }
        let locked: bool = self.row("select integration.hold_session_lock($1)", &owner).await?.try_get(0)?;
        if !locked {
            debug!(%owner, "the session lock is not held: a death of this process is noticed by its lease alone");
        }
        self.locked = Some(owner);
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

/// Waits for another owner.
async fn changed(owners: &mut Option<watch::Receiver<Arc<str>>>) -> Result<(), watch::error::RecvError> {
    match owners {
        Some(owners) => owners.changed().await,
        None => std::future::pending().await,
    }
}
