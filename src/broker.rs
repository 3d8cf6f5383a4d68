//! The broker: one database, its pool of connections, and what this process runs on it.

use std::sync::Arc;

use crate::{
    config::BrokerConfig,
    connection::Settings,
    consumer::ConsumerBuilder,
    core::{Client, Core},
    error::Result,
    migrate::{self, Adopt, Adoption},
    operate::Operator,
    producer::Producer,
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

    /// Connects to `DOORBELL_DATABASE_URL`, else `DATABASE_URL`, else what libpq's `PG*` variables say, else to this user's
    /// server of `doorbell up`; see [`Settings::from_env`].
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
    /// [`Schema`](crate::ErrorKind::Schema) when the database is newer than this program, a migration was altered, or tables
    /// are there that no migration made (see [`adopt`](Self::adopt)).
    pub async fn migrate(&self) -> Result<migrate::Report> {
        migrate::run(self.0.settings(), None).await
    }

    /// What [`adopt`](Self::adopt) would do with tables that were there before Doorbell; `None`: there are none. Changes
    /// nothing; reads all rows.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a time zone that the server does not know.
    pub async fn adoption(&self, how: &Adopt) -> Result<Option<Adoption>> {
        migrate::look(self.0.settings(), how).await
    }

    /// Makes the schema where the integration document's own tables are, with their rows as messages: `data_staging`,
    /// `data_staging_archive` and `audit_log`, or some of them. All in one transaction, for which whoever publishes or
    /// consumes waits, and whose statements then go on with the new tables: ids, statuses, times and rights are the old
    /// ones, and nothing rings. The old tables stay as they are in a schema of their own, `integration_before_doorbell`.
    /// Where there are none, or somebody else was faster, this is [`migrate`](Self::migrate).
    ///
    /// The document never deletes what it has archived or logged: where there are such rows, `archive_retention` and
    /// `audit_retention` become a hundred years.
    ///
    /// # Errors
    /// [`Schema`](crate::ErrorKind::Schema) with all that differs from the document or would be lost; then nothing was
    /// changed. Else as [`adoption`](Self::adoption) and [`migrate`](Self::migrate).
    pub async fn adopt(&self, how: &Adopt) -> Result<migrate::Report> {
        migrate::run(self.0.settings(), Some(how)).await
    }

    /// Where the schema stands; changes nothing.
    ///
    /// # Errors
    /// As [`migrate`](Self::migrate).
    pub async fn migration_status(&self) -> Result<migrate::Status> {
        migrate::status(self.0.settings()).await
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

    /// What operators do with the same database: looking, putting back, stopping, maintaining.
    pub fn operator(&self) -> Operator {
        Operator::new(self.0.clone())
    }

    /// Operators' verbs over at most `connections_max` connections of their own, on which the server refuses every change; for
    /// pages, which wait no longer than `within` for a connection or an answer. Connects when it is first used.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for no connections at all.
    pub fn reading(&self, connections_max: usize, within: std::time::Duration) -> Result<Operator> {
        Ok(Operator::new(Arc::new(self.0.reading(connections_max, within)?)))
    }

    /// Operators' verbs of somebody whose name the audit log is to have (`app_name`), over one connection of their own. Connects
    /// when it is first used.
    ///
    /// # Errors
    /// As [`connect`](Self::connect) has for settings that cannot be used.
    pub fn acting(&self, name: &str) -> Result<Operator> {
        Ok(Operator::new(Arc::new(self.0.acting(name)?)))
    }

    /// Where it connects to; printed, they have no password.
    pub fn settings(&self) -> &Settings {
        self.0.settings()
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
        self.0.running().is_some_and(|process| process.listener().is_up())
    }

    /// Whether the lease of this process is renewed; false when no beat got through for as long as it lasts, and others may
    /// take its messages; true before the first consumer started. For readiness checks.
    pub fn is_beating(&self) -> bool {
        self.0.running().is_none_or(|process| process.is_beating())
    }

    /// Gives back whatever this process still holds, takes it off the list of processes, and closes its connections. Shut consumers
    /// down first. Where a program ends without it, nothing is lost: other processes find that its connection has ended, give back
    /// what it had and take it off the list; where there are none, it stays on the list until there is one.
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
}
