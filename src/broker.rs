//! The broker: one database, its pool of connections, and what this process runs on it.

use std::{sync::Arc, time::Duration};

use tokio::sync::OnceCell;
use tokio_postgres::Transaction;

use crate::{
    connection::{Pool, PoolConfig, Pooled, Settings},
    consumer::ConsumerBuilder,
    doctor,
    error::{Error, Result},
    maintenance::{self, Maintenance},
    migrate,
    process::{self, LeaseConfig, Process},
    producer::Producer,
    store::{BreakerRow, Maintained, MaintenanceDue, Store, TargetStats},
    telemetry::{Observer, Propagator, Telemetry},
    wake::PingConfig,
};

/// How a broker uses its database.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Most pooled connections; the listener and the heartbeat have one more each. Default 10.
    pub connections_max: usize,
    /// How long a caller waits for a free connection. Default 30 s.
    pub connection_wait: Duration,
    /// Largest payload that is published, in bytes of JSON text. Default 1 MiB; the schema refuses more than 64 MiB.
    pub payload_bytes_max: usize,
    /// How long this process's messages stay its own when it cannot be reached any more. Default 15 s, at least 3 beats.
    pub lease: Duration,
    /// How often the lease is renewed. Default 1 s.
    pub beat: Duration,
    /// How often the listener proves, by a notification to itself, that notifications arrive. Shorter finds a silent
    /// connection sooner and costs a statement each. Default 10 s.
    pub ping: Duration,
    /// How long that notification may take before the listener connects anew. Default 5 s.
    pub ping_within: Duration,
    /// How long a statement may go unanswered before its connection is closed. Nothing is cancelled: what it did is
    /// unknown then. Longer than any statement on a busy server takes. Default 30 s.
    pub statement_within: Duration,
    /// Is told what happens, for metrics; see [`Observer`]. Default: nobody.
    pub observer: Option<Arc<dyn Observer>>,
    /// Carries the context of traces in the headers of messages; see [`Propagator`]. Default: none.
    pub propagator: Option<Arc<dyn Propagator>>,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            connections_max: 10,
            connection_wait: Duration::from_secs(30),
            payload_bytes_max: 1 << 20,
            lease: Duration::from_secs(15),
            beat: Duration::from_secs(1),
            ping: Duration::from_secs(10),
            ping_within: Duration::from_secs(5),
            statement_within: Duration::from_secs(30),
            observer: None,
            propagator: None,
        }
    }
}

impl BrokerConfig {
    fn check(&self) -> Result<()> {
        if self.connections_max == 0 {
            return Err(Error::config("connections_max is 0; at least one connection is needed"));
        }
        if self.payload_bytes_max > 64 << 20 {
            return Err(Error::config("payload_bytes_max is over 64 MiB, which the schema refuses"));
        }
        if self.beat.is_zero() || self.lease < self.beat * 3 {
            return Err(Error::config("lease must be at least three times beat, and beat above zero"));
        }
        if self.ping.is_zero() || self.ping_within.is_zero() || self.statement_within.is_zero() {
            return Err(Error::config("ping, ping_within and statement_within must be above zero"));
        }
        Ok(())
    }
}

/// A handle to one database with Doorbell's schema. Cheap to clone; all clones share the connections, the listener and
/// the lease.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    settings: Settings,
    config: BrokerConfig,
    store: Store,
    process: OnceCell<Arc<Process>>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Broker({})", self.0.settings)
    }
}

impl Broker {
    /// Connects to a libpq connection string (URI or key=value), filled up from the environment as libpq does.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for an unusable string, [`Connect`](crate::ErrorKind::Connect) when no server answers.
    pub async fn connect(connection: &str) -> Result<Self> {
        Self::with_config(Settings::parse(connection)?, BrokerConfig::default()).await
    }

    /// Connects to `DOORBELL_DATABASE_URL`, else `DATABASE_URL`, else what libpq's `PG*` variables say.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn from_env() -> Result<Self> {
        Self::with_config(Settings::from_env()?, BrokerConfig::default()).await
    }

    /// Connects with a configuration of its own. One connection is made now, so that a wrong address fails here.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`Config`](crate::ErrorKind::Config) for an unusable configuration.
    pub async fn with_config(settings: Settings, config: BrokerConfig) -> Result<Self> {
        config.check()?;
        let settings = settings.fallback_application_name("doorbell");
        let limits = PoolConfig { connections_max: config.connections_max, wait_max: Some(config.connection_wait) };
        let pool = Pool::new(settings.clone(), &limits)?;
        drop(pool.get().await?);
        let telemetry = Telemetry { observer: config.observer.clone(), propagator: config.propagator.clone() };
        let store = Store::new(pool, config.statement_within, telemetry);
        Ok(Self(Arc::new(Inner { settings, config, store, process: OnceCell::new() })))
    }

    /// Brings the schema up to this version. Safe when many processes start at once; changes nothing when it is.
    ///
    /// # Errors
    /// [`Schema`](crate::ErrorKind::Schema) when the database is newer than this program or a migration was altered.
    pub async fn migrate(&self) -> Result<migrate::Report> {
        migrate::run(&self.0.settings).await
    }

    /// Where the schema stands; changes nothing.
    ///
    /// # Errors
    /// As [`migrate`](Self::migrate).
    pub async fn migration_status(&self) -> Result<migrate::Status> {
        migrate::status(&self.0.settings).await
    }

    /// Examines the database, the way to it and the fleet; see [`doctor`]. Changes nothing, and takes a second or two.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); what cannot be looked at is a finding and no error.
    pub async fn examine(&self, options: &doctor::Options) -> Result<doctor::Report> {
        doctor::examine(&self.0.settings, options).await
    }

    /// A pooled connection for transactions of your own; see [`Client`].
    ///
    /// # Errors
    /// [`Timeout`](crate::ErrorKind::Timeout) when none became free in time, else as [`connect`](Self::connect).
    pub async fn client(&self) -> Result<Client> {
        Ok(Client(self.0.store.pool().get().await?))
    }

    /// Publishes as the application `source`.
    pub fn producer(&self, source: impl Into<String>) -> Producer {
        Producer::new(self.clone(), source.into())
    }

    /// Consumes what is published for the application `target`.
    pub fn consumer(&self, target: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), target.into())
    }

    /// The counts of every target that has messages, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn stats(&self) -> Result<Vec<TargetStats>> {
        self.0.store.stats().await
    }

    /// Whether nothing of a target can be handled now and nothing is being handled: no pending, due or processing message,
    /// of these record types where some are given. Scheduled ones wait for later and do not count.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_drained(&self, target: &str, record_types: Option<&[String]>) -> Result<bool> {
        self.0.store.is_drained(target, record_types).await
    }

    /// The circuit breakers that were ever tripped, by key.
    ///
    /// # Errors
    /// The database's.
    pub async fn breakers(&self) -> Result<Vec<BreakerRow>> {
        self.0.store.breakers().await
    }

    /// Asks the database for an answer, over a pooled connection; it has one only where the schema is. For readiness
    /// checks, which put a deadline of their own around it.
    ///
    /// # Errors
    /// The database's.
    pub async fn ping(&self) -> Result<()> {
        self.0.store.ping().await
    }

    /// Whether the consumers of a target are meant to sweep: its bell was switched off (`integration.targets.bell`). Where
    /// it was not, consumers that are not [listening](Self::is_listening) miss something.
    ///
    /// # Errors
    /// The database's.
    pub async fn bell_is_off(&self, target: &str) -> Result<bool> {
        self.0.store.bell_is_off(target).await
    }

    /// Whether this process's consumers are woken by bells at the moment; false while the listener is down (they sweep
    /// then) and before the first consumer started. For readiness checks.
    pub fn is_listening(&self) -> bool {
        self.0.process.get().is_some_and(|process| process.is_listening())
    }

    /// All of the maintenance, once and now, whoever else does it: rescues the messages of dead consumers, makes due messages
    /// pending, lets canaries of open breakers through, folds counters, archives and purges what is past retention, creates
    /// and drops partitions. In small transactions with pauses; what somebody holds is left for the next time. Cancelling
    /// it leaves what was done.
    ///
    /// # Errors
    /// The database's.
    pub async fn maintain(&self) -> Result<Maintained> {
        maintenance::all(&self.0.store).await
    }

    /// The maintenance in rounds, for processes without a consumer: consumers do it by themselves.
    pub fn maintenance(&self) -> Maintenance {
        Maintenance::new(self.0.store.clone(), process::new_incarnation(&process::host_name()))
    }

    /// What [`maintain`](Self::maintain) would do now; changes nothing. Empty: nothing.
    ///
    /// # Errors
    /// The database's.
    pub async fn maintenance_due(&self) -> Result<Vec<MaintenanceDue>> {
        self.0.store.maintenance_due().await
    }

    /// Gives back whatever this process still holds and closes its connections. Shut consumers down first.
    pub async fn close(self) {
        if let Some(process) = self.0.process.get() {
            match process.deregister().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "gave back messages at the end"),
                Err(error) => tracing::debug!(?error, "could not deregister; the lease will run out"),
            }
        }
        self.0.store.pool().close();
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.0.config.payload_bytes_max
    }

    /// What this process runs in the background; started by the first consumer.
    pub(crate) async fn process(&self) -> Result<Arc<Process>> {
        let Inner { settings, config, store, process } = &*self.0;
        let lease = LeaseConfig { lease: config.lease, beat: config.beat };
        let ping = PingConfig { every: config.ping, within: config.ping_within };
        let start = async {
            // Handlers that hold every pooled connection must not keep the heartbeat from its own.
            let one = PoolConfig { connections_max: 1, wait_max: Some(config.lease) };
            let beats =
                Store::new(Pool::new(settings.clone(), &one)?, config.statement_within, store.telemetry().clone());
            Process::start(store.clone(), beats, settings.clone(), lease, ping).await.map(Arc::new)
        };
        Ok(process.get_or_try_init(|| start).await?.clone())
    }
}

/// A connection of the broker's pool: business data and messages in one transaction.
///
/// ```no_run
/// # async fn example(broker: doorbell::Broker, message: doorbell::Message) -> Result<(), Box<dyn std::error::Error>> {
/// let mut client = broker.client().await?;
/// let tx = client.transaction().await?;
/// tx.execute("insert into orders (id) values (7)", &[]).await?;
/// broker.producer("shop").publish_in(&tx, &message).await?;
/// tx.commit().await?;
/// # Ok(())
/// # }
/// ```
///
/// Returns to the pool when dropped, so it must leave no trace in the session: no LISTEN, no session locks, no SET outside a
/// transaction.
pub struct Client(Pooled);

impl Client {
    /// Begins a transaction. Dropping it without a commit rolls it back.
    ///
    /// # Errors
    /// The database's.
    pub async fn transaction(&mut self) -> Result<Transaction<'_>> {
        let client: &mut tokio_postgres::Client = &mut self.0;
        Ok(client.transaction().await?)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
