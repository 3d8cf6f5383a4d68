//! The demo's own table, in the demo's own database: which message was handled, in that order, and once more for every time
//! it was. And the questions that only the demo has.

use std::{sync::Arc, time::Duration};

use doorbell::{Error, MessageId};
use tokio::{task::JoinSet, time::interval};
use tokio_postgres::{Client, NoTls, Row, types::ToSql};

use crate::exit::{Exit, Failure};

/// A message that fails is retried at once, for the sake of those who watch.
const SCHEMA: &str = "\
    create schema demo;
    create table demo.ledger (at bigint generated always as identity, message_id bigint not null);
    insert into integration.targets (target_app, max_retries, backoff_base_ms, backoff_cap_ms)
    values ('billing', 3, 100, 200), ('shipping', 3, 100, 200), ('mail', 3, 100, 200)";

const DRAINED: &str =
    "select count(*) from integration.data_staging where status in ('pending', 'scheduled', 'processing')";

const EVERY: Duration = Duration::from_millis(50);

/// A connection of its own. Cheap to clone; statements of all clones are pipelined.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    client: Arc<Client>,
    _driver: Arc<JoinSet<()>>,
}

impl Ledger {
    /// Makes the table and sets the retry policy of the demo's targets.
    pub(super) async fn create(database: &str) -> Result<Self, Failure> {
        let ledger = Self::open(database).await?;
        ledger.client.batch_execute(SCHEMA).await.map_err(Error::from)?;
        Ok(ledger)
    }

    /// Opens one that was made.
    pub(super) async fn open(database: &str) -> Result<Self, Failure> {
        let (client, connection) = tokio_postgres::connect(database, NoTls).await.map_err(Error::from)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its error reaches whoever asks next.
            let _ = connection.await;
        });
        Ok(Self { client: Arc::new(client), _driver: Arc::new(driver) })
    }

    /// Notes that a message was handled.
    pub(super) async fn note(&self, id: MessageId) -> Result<(), Error> {
        self.client.execute("insert into demo.ledger (message_id) values ($1)", &[&id]).await?;
        Ok(())
    }

    /// One number.
    pub(super) async fn number(&self, query: &str, params: &[&(dyn ToSql + Sync)]) -> Result<i64, Failure> {
        match self.rows(query, params).await?.first() {
            Some(row) => Ok(row.try_get(0).map_err(Error::from)?),
            None => Err(Failure::new(Exit::Failed, "a count came back empty")),
        }
    }

    pub(super) async fn rows(&self, query: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
        Ok(self.client.query(query, params).await.map_err(Error::from)?)
    }

    /// Waits until a count is zero.
    pub(super) async fn until_zero(&self, query: &str, params: &[&(dyn ToSql + Sync)]) -> Result<(), Failure> {
        let mut tick = interval(EVERY);
        loop {
            tick.tick().await;
            if self.number(query, params).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Waits until every message has ended.
    pub(super) async fn drained(&self) -> Result<(), Failure> {
        self.until_zero(DRAINED, &[]).await
    }
}
