//! Connections that are shared by whoever has a statement to run.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult},
};
use deadpool_postgres::ClientWrapper;
use tokio_postgres::IsolationLevel;

use super::{limits::Limits, settings::Settings};
use crate::{
    error::{Error, ErrorKind, Result},
    schema::Schema,
};

/// A bounded set of connections, opened when needed.
///
/// Only for statements that leave no trace in the session: no `LISTEN`, no session locks, no `SET` outside a
/// transaction. Cheap to clone; the clones share the connections.
#[derive(Clone)]
pub(crate) struct Pool(managed::Pool<Manager>);

/// How large a [`Pool`] is and how patient.
#[derive(Clone, Debug)]
pub(crate) struct PoolConfig {
    /// The most connections that are open at a time; at least 1.
    pub(crate) connections_max: usize,
    /// How long [`Pool::get`] waits for one of them to become free; `None` waits for as long as it takes. The time to
    /// open a connection is not counted, it has its own limit.
    pub(crate) wait_max: Option<Duration>,
    /// How long the server lets a statement wait for a lock.
    pub(crate) locks_max: Duration,
    /// Whether the server is to refuse whatever changes something.
    pub(crate) read_only: bool,
}

impl Pool {
    /// Opens nothing yet.
    pub(crate) fn new(settings: Settings, config: &PoolConfig) -> Result<Self> {
        if config.connections_max == 0 {
            return Err(Error::invalid("a pool needs at least one connection"));
        }
        let &PoolConfig { locks_max, read_only, .. } = config;
        managed::Pool::builder(Manager { settings, locks_max, read_only, distrusted: Mutex::default() })
            .max_size(config.connections_max)
            .wait_timeout(config.wait_max)
            // The one that was used last has its plans and the tables' rows in its caches: a session that comes to a hold
            // for the first time spends as long on planning as on a batch of hundreds.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .map(Self)
            .map_err(|error| Error::invalid("the pool cannot be built").with_source(error))
    }

    /// A connection of one's own until it is dropped.
    ///
    /// It was open when last looked at, which costs no round trip and proves nothing: a statement may still fail
    /// because the server has gone. Cancelling takes nothing out of the pool.
    ///
    /// # Errors
    ///
    /// `Timeout` where none became free in time, `Closed` after [`Pool::close`], else as for connecting.
    pub(crate) async fn get(&self) -> Result<Pooled> {
        Ok(Pooled(self.0.get().await?))
    }

    /// The most connections that are open at a time.
    pub(crate) fn connections_max(&self) -> usize {
        self.0.status().max_size
    }

    /// Whether statements may be prepared under names.
    pub(crate) fn prepares(&self) -> bool {
        self.0.manager().settings.prepares()
    }

    /// The schema of the installation.
    pub(crate) fn schema(&self) -> &Schema {
        self.0.manager().settings.schema()
    }

    /// Has every connection replaced that lies idle now, when it is next wanted: something is wrong with the way to the
    /// server, and a connection does not show that it went silent until a statement has waited for its whole deadline.
    pub(crate) fn distrust_idle(&self) {
        *self.0.manager().distrusted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Closes the idle connections now and the others when they come back; [`Pool::get`] fails from now on.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0.status();
        f.debug_struct("Pool")
            .field("settings", &self.0.manager().settings)
            .field("open", &status.size)
            .field("idle", &status.available)
            .field("waiting", &status.waiting)
            .finish()
    }
}

/// A connection out of a [`Pool`], to which it returns when dropped.
///
/// Whoever gives up waiting for a statement must not let it return: the next user would queue behind that statement.
/// See [`Pooled::discard`].
pub(crate) struct Pooled(Object<Manager>);

impl Pooled {
    /// Closes the socket instead of returning the connection, and makes room for a new one.
    ///
    /// This is what to do when a deadline fires in the middle of a statement. The statement may still happen: the
    /// server notices only when it next reads or writes. It is deliberately not cancelled, because a commit that is
    /// cancelled while it waits for a synchronous standby reports success without having any.
    pub(crate) fn discard(self) {
        drop(Object::take(self.0));
    }

    /// How transactions of others are to be isolated, where that is more than ours are.
    pub(crate) fn stricter(&self) -> Option<IsolationLevel> {
        self.0.limits.stricter
    }
}

impl Deref for Pooled {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.0.client
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        &mut self.0.client
    }
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled").finish_non_exhaustive()
    }
}

/// A connection with a statement under way. Dropped before the answer came, because its user was cancelled or gave up, it
/// is closed: returned, the next user would wait behind that statement, on a dead connection for ever.
#[derive(Debug)]
pub(crate) struct Busy(Option<Pooled>);

impl Busy {
    /// Returns the connection to the pool: nothing is under way on it.
    pub(crate) fn answered(mut self) {
        self.0 = None;
    }

    /// How to begin a transaction within the limits of the session.
    pub(crate) fn begin(&self) -> &str {
        self.0.as_ref().and_then(|pooled| pooled.0.limits.begin.as_deref()).unwrap_or("begin")
    }

    /// A transaction that handlers work in, as the role or the database wants it isolated.
    pub(crate) fn build_handlers_transaction(&mut self) -> deadpool_postgres::TransactionBuilder<'_> {
        let stricter = self.0.as_ref().and_then(Pooled::stricter);
        let transaction = self.build_transaction();
        match stricter {
            Some(level) => transaction.isolation_level(level),
            None => transaction,
        }
    }

    /// Runs one statement, which must be sent when it is first polled, within the limits of the session. Behind a pooler they
    /// are said in a transaction around it, in the same round trip.
    pub(crate) async fn limited<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        let Some(begin) = self.0.as_ref().and_then(|pooled| pooled.0.limits.begin.as_deref()) else {
            return statement.await;
        };
        let (began, answer, ended) =
            futures::future::join3(self.batch_execute(begin), statement, self.batch_execute("commit")).await;
        began?;
        let answer = answer?;
        ended?;
        Ok(answer)
    }
}

impl From<Pooled> for Busy {
    fn from(client: Pooled) -> Self {
        Self(Some(client))
    }
}

impl Deref for Busy {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        self.0.as_ref().expect("there until it is answered or dropped")
    }
}

impl DerefMut for Busy {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        self.0.as_mut().expect("there until it is answered or dropped")
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            client.discard();
        }
    }
}

/// Opens connections with our settings instead of the driver's.
struct Manager {
    settings: Settings,
    locks_max: Duration,
    read_only: bool,
    /// Connections that were last wanted before are not used again.
    distrusted: Mutex<Option<Instant>>,
}

/// A connection, and how its statements are limited.
struct Session {
    client: ClientWrapper,
    limits: Limits,
}

impl managed::Manager for Manager {
    type Type = Session;
    type Error = Error;

    async fn create(&self) -> Result<Session> {
        let (client, messages) = self.settings.connect().await?;
        // The wrapper owns the task and ends it, and with it the socket, when it is dropped.
        let client = ClientWrapper::new(client, tokio::spawn(messages.drain()));
        let limited = Limits::set(&client, self.locks_max, self.read_only);
        let limited = tokio::time::timeout(self.locks_max, limited).await;
        let silent = |_| Error::new(ErrorKind::Timeout, "a new connection did not answer");
        let limits = limited.map_err(silent)??;
        Ok(Session { client, limits })
    }

    async fn recycle(&self, session: &mut Session, metrics: &Metrics) -> RecycleResult<Error> {
        if session.client.is_closed() {
            return Err(RecycleError::message("the connection was lost"));
        }
        let distrusted = *self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        if distrusted.is_some_and(|since| metrics.recycled.unwrap_or(metrics.created) <= since) {
            return Err(RecycleError::message("the connection may have gone silent"));
        }
        Ok(())
    }
}

impl From<PoolError<Error>> for Error {
    fn from(error: PoolError<Error>) -> Self {
        match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(_) => Self::new(ErrorKind::Timeout, "no database connection became free in time"),
            PoolError::Closed => Self::new(ErrorKind::Closed, "the broker was closed"),
            PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                Self::new(ErrorKind::Connect, "no database connection could be had")
            }
        }
    }
}
