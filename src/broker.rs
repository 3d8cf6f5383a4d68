//! The broker: one database, its pool of connections, and what this process runs on it.

use std::sync::Arc;

use crate::{
    config::BrokerConfig,
    connection::Settings,
    consumer::ConsumerBuilder,
    core::{Client, Core},
    doctor,
    error::Result,
    maintenance::{self, Maintenance},
    migrate, process,
    producer::Producer,
    store::{BreakerRow, Maintained, MaintenanceDue, Store, TargetStats},
};

/// A handle to one database with Doorbell's schema. Cheap to clone; all clones share the connections, the listener and
/// the lease.
#[derive(Clone)]
pub struct Broker(Arc<Core>);

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Broker({})", self.0.settings())
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
        Ok(Self(Arc::new(Core::open(settings, config).await?)))
    }

    /// Brings the schema up to this version. Safe when many processes start at once; changes nothing when it is.
    ///
    /// # Errors
    /// [`Schema`](crate::ErrorKind::Schema) when the database is newer than this program or a migration was altered.
    pub async fn migrate(&self) -> Result<migrate::Report> {
        migrate::run(self.0.settings()).await
    }

    /// Where the schema stands; changes nothing.
    ///
    /// # Errors
    /// As [`migrate`](Self::migrate).
    pub async fn migration_status(&self) -> Result<migrate::Status> {
        migrate::status(self.0.settings()).await
    }

    /// Examines the database, the way to it and the fleet; see [`doctor`]. Changes nothing, and takes a second or two.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); what cannot be looked at is a finding and no error.
    pub async fn examine(&self, options: &doctor::Options) -> Result<doctor::Report> {
        doctor::examine(self.0.settings(), options).await
    }

    /// A pooled connection for transactions of your own; see [`Client`].
    ///
    /// # Errors
    /// [`Timeout`](crate::ErrorKind::Timeout) when none became free in time, else as [`connect`](Self::connect).
    pub async fn client(&self) -> Result<Client> {
        self.0.client().await
    }

    /// Publishes as the application `source`.
    pub fn producer(&self, source: impl Into<String>) -> Producer {
        Producer::new(self.0.clone(), source.into())
    }

    /// Consumes what is published for the application `target`.
    pub fn consumer(&self, target: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.0.clone(), target.into())
    }

    /// The counts of every target that has messages, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn stats(&self) -> Result<Vec<TargetStats>> {
        self.0.store().stats().await
    }

    /// Whether nothing of a target can be handled now and nothing is being handled: no pending, due or processing message,
    /// of these record types where some are given. Scheduled ones wait for later and do not count.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_drained(&self, target: &str, record_types: Option<&[String]>) -> Result<bool> {
        self.0.store().is_drained(target, record_types).await
    }

    /// The circuit breakers that were ever tripped, by key.
    ///
    /// # Errors
    /// The database's.
    pub async fn breakers(&self) -> Result<Vec<BreakerRow>> {
        self.0.store().breakers().await
    }

    /// Asks the database for an answer, over a pooled connection; it has one only where the schema is. For readiness
    /// checks, which put a deadline of their own around it.
    ///
    /// # Errors
    /// The database's.
    pub async fn ping(&self) -> Result<()> {
        self.0.store().ping().await
    }

    /// Whether the consumers of a target are meant to sweep: its bell was switched off (`integration.targets.bell`). Where
    /// it was not, consumers that are not [listening](Self::is_listening) miss something.
    ///
    /// # Errors
    /// The database's.
    pub async fn bell_is_off(&self, target: &str) -> Result<bool> {
        self.0.store().bell_is_off(target).await
    }

    /// Whether this process's consumers are woken by bells at the moment; false while the listener is down (they sweep
    /// then) and before the first consumer started. For readiness checks.
    pub fn is_listening(&self) -> bool {
        self.0.running().is_some_and(|process| process.is_listening())
    }

    /// All of the maintenance, once and now, whoever else does it: rescues the messages of dead consumers, makes due messages
    /// pending, lets canaries of open breakers through, folds counters, archives and purges what is past retention, creates
    /// and drops partitions. In small transactions with pauses; what somebody holds is left for the next time. Cancelling
    /// it leaves what was done.
    ///
    /// # Errors
    /// The database's.
    pub async fn maintain(&self) -> Result<Maintained> {
        maintenance::all(self.0.store()).await
    }

    /// The maintenance in rounds, for processes without a consumer: consumers do it by themselves.
    pub fn maintenance(&self) -> Maintenance {
        Maintenance::new(self.0.store().clone(), process::fresh_name())
    }

    /// What [`maintain`](Self::maintain) would do now; changes nothing. Empty: nothing.
    ///
    /// # Errors
    /// The database's.
    pub async fn maintenance_due(&self) -> Result<Vec<MaintenanceDue>> {
        self.0.store().maintenance_due().await
    }

    /// Gives back whatever this process still holds and closes its connections. Shut consumers down first.
    pub async fn close(self) {
        if let Some(process) = self.0.running() {
            match process.deregister().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "gave back messages at the end"),
                Err(error) => tracing::debug!(?error, "could not deregister; the lease will run out"),
            }
        }
        self.0.store().pool().close();
    }

    pub(crate) fn store(&self) -> &Store {
        self.0.store()
    }
}
