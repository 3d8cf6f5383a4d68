//! What everything that works on one database needs: its settings, the configuration, the store, and the process, which is
//! started by the first consumer. [`Broker`](crate::Broker) is the façade of it.

use std::{sync::Arc, time::Duration};

use tokio::sync::OnceCell;
use tokio_postgres::Transaction;

use crate::{
    config::BrokerConfig,
    connection::{Pool, PoolConfig, Pooled, Settings},
    error::Result,
    process::{LeaseConfig, PingConfig, Process, Requesters},
    store::Store,
    telemetry::Telemetry,
};

/// How long a statement on the heartbeat's connection may take even where leases are short.
const BEATS_WITHIN: Duration = Duration::from_secs(5);

/// Shared by a broker, its clones, and all that they made.
#[derive(Debug)]
pub(crate) struct Core {
    settings: Settings,
    config: BrokerConfig,
    store: Store,
    process: OnceCell<Arc<Process>>,
    requesters: OnceCell<Requesters>,
}

impl Core {
    /// Checks the configuration and makes one connection.
    pub(crate) async fn open(settings: Settings, config: BrokerConfig) -> Result<Self> {
        config.check()?;
        let core = Self::unopened(settings.fallback_application_name("doorbell"), config, false)?;
        let client = core.store.pool().get().await?;
        core.settings.check_names(&client).await?;
        drop(client);
        Ok(core)
    }

    /// Makes no connection yet.
    fn unopened(settings: Settings, config: BrokerConfig, read_only: bool) -> Result<Self> {
        let limits = PoolConfig {
            connections_max: config.connections_max,
            wait_max: Some(config.connection_wait),
            locks_max: below(config.statement_within),
            read_only,
        };
        let pool = Pool::new(settings.clone(), &limits)?;
        let telemetry = Telemetry { observer: config.observer.clone(), propagator: config.propagator.clone() };
        let store = Store::new(pool, config.statement_within, telemetry);
        Ok(Self { settings, config, store, process: OnceCell::new(), requesters: OnceCell::new() })
    }

    /// The same database for pages: over so many connections of its own, on which the server refuses every change, and
    /// without waiting for long.
    pub(crate) fn reading(&self, connections_max: usize, within: Duration) -> Result<Self> {
        let config =
            BrokerConfig { connections_max, connection_wait: within, statement_within: within, ..self.config.clone() };
        Self::unopened(self.settings.clone(), config, true)
    }

    /// The same database, over one connection of its own, for somebody whose name the audit log is to have.
    pub(crate) fn acting(&self, name: &str) -> Result<Self> {
        let config = BrokerConfig { connections_max: 1, ..self.config.clone() };
        Self::unopened(self.settings.clone().application_name(name), config, false)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn config(&self) -> &BrokerConfig {
        &self.config
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// A pooled connection.
    pub(crate) async fn client(&self) -> Result<Client> {
        Ok(Client(self.store.pool().get().await?))
    }

    /// What this process runs in the background; started when it is first asked for.
    pub(crate) async fn process(&self) -> Result<Arc<Process>> {
        Ok(self.process.get_or_try_init(|| self.start()).await?.clone())
    }

    /// The same, if it was started.
    pub(crate) fn running(&self) -> Option<&Arc<Process>> {
        self.process.get()
    }

    /// Who waits for answers in this process; begins to listen for them when it is first asked for.
    pub(crate) async fn requesters(&self) -> Result<&Requesters> {
        let Self { settings, config, store, .. } = self;
        let ping = PingConfig { every: config.ping, within: config.ping_within };
        let start = || Requesters::start(store.clone(), settings.clone(), ping, config.answers);
        self.requesters.get_or_try_init(start).await
    }

    async fn start(&self) -> Result<Arc<Process>> {
        let Self { settings, config, store, .. } = self;
        let lease = LeaseConfig { lease: config.lease, beat: config.beat };
        let ping = PingConfig { every: config.ping, within: config.ping_within };
        // Handlers that hold every pooled connection must not keep the heartbeat from its own.
        // Whoever uses the connection of the beats gives a silent one up in time for another beat.
        let deadline = config.statement_within.min((config.lease / 2).max(BEATS_WITHIN));
        let locks_max = below(deadline.min(config.lease / 2));
        let one = PoolConfig { connections_max: 1, wait_max: Some(config.lease), locks_max, read_only: false };
        let beats = Store::new(Pool::new(settings.clone(), &one)?, deadline, store.telemetry().clone());
        Process::start(store.clone(), beats, settings.clone(), lease, ping).await.map(Arc::new)
    }
}

/// How long the server may wait for a lock where its answer is waited for so long.
fn below(deadline: Duration) -> Duration {
    deadline * 2 / 3
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
    /// Begins a transaction, as isolated as the role or the database wants it. Dropping it without a commit rolls it back.
    ///
    /// # Errors
    /// The database's.
    pub async fn transaction(&mut self) -> Result<Transaction<'_>> {
        let stricter = self.0.stricter();
        let client: &mut tokio_postgres::Client = &mut self.0;
        let transaction = client.build_transaction();
        let transaction = match stricter {
            Some(level) => transaction.isolation_level(level),
            None => transaction,
        };
        Ok(transaction.start().await?)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
