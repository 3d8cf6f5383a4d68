//! The only place that calls the SQL functions. One file per station of a message; the SQL that changes state itself
//! lives in `migrations/`.

mod audit;
mod bell;
mod captures;
mod claim;
mod contracts;
mod extracts;
mod fence;
mod follow;
mod foreign;
mod held;
mod inspect;
mod json;
mod keys;
mod lease;
mod list;
mod maintain;
mod moment;
mod observe;
mod operate;
mod publish;
mod requests;
mod rights;
mod savepoint;
mod schedules;
mod settle;
#[cfg(feature = "metrics")]
mod sources;
mod steps;
mod summed;
mod together;
mod topics;
mod unnamed;
mod window;

use std::{borrow::Cow, sync::Arc, time::Duration};

use deadpool_postgres::Transaction;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{IsolationLevel, Row, error::SqlState, types::ToSql};

use crate::{
    connection::{Busy, Pool},
    error::{Error, ErrorKind, Result},
    telemetry::Telemetry,
};

pub(crate) use claim::{ClaimRequest, KeptPlace, Looked, Most, Passed, Place, Ranges};
pub(crate) use fence::Claim;
pub(crate) use follow::Seen;
pub use foreign::ForeignDatabase;
pub(crate) use held::HeldTx;
pub(crate) use lease::{Beat, Met, Registrant};
pub(crate) use list::order_of;
pub(crate) use maintain::{FOLD_SLICE, FoundCounts};
pub(crate) use requests::Done;
pub(crate) use savepoint::Savepoint;
pub(crate) use settle::{Settlement, Verdict};
pub(crate) use window::Window;

use together::Together;

/// The verbs, over pooled connections, each statement under a deadline.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: Pool,
    /// When it passes, the connection is dropped: a statement that may be committing must never be cancelled.
    deadline: Duration,
    telemetry: Telemetry,
    /// Connections that may hold messages at a time: half of all, so that others never wait for handlers, and none where
    /// there is only one.
    holders: Arc<Semaphore>,
    together: Together,
}

impl Store {
    pub(crate) fn new(pool: Pool, deadline: Duration, telemetry: Telemetry) -> Self {
        let holders = Arc::new(Semaphore::new(pool.connections_max() / 2));
        Self { pool, deadline, telemetry, holders, together: Together::default() }
    }

    /// Whom to tell about what was done with it.
    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A statement of ours, as it is for the schema of this installation.
    fn sql<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.pool.schema().sql(text)
    }

    /// A pooled connection for statements that are not to be waited for by its next user.
    pub(crate) async fn busy(&self) -> Result<Busy> {
        Ok(Busy::from(self.pool.get().await?))
    }

    /// The right to keep a connection for as long as handlers take; `None`: connections are scarce.
    pub(crate) fn holder(&self) -> Option<OwnedSemaphorePermit> {
        self.holders.clone().try_acquire_owned().ok()
    }

    /// Runs one statement, prepared where that may be. `doing` names it in errors ("claim messages").
    async fn query(&self, doing: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let client = self.busy().await.map_err(|error| error.context(doing))?;
        self.conclude(client, doing, async |client| {
            // Before it is limited: what is sent then must be sent at once.
            self.prepare(client, sql).await?;
            client.limited(self.ask(client, sql, params)).await
        })
        .await
    }

    /// Has a statement ready, so that [`Store::ask`] sends it when it is first polled.
    async fn prepare(&self, client: &Busy, sql: &str) -> Result<(), tokio_postgres::Error> {
        if self.pool.prepares() {
            client.prepare_cached(&self.sql(sql)).await?;
        }
        Ok(())
    }

    /// Runs one statement on a connection, without a deadline.
    async fn ask(
        &self,
        client: &Busy,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let sql = self.sql(sql);
        if !self.pool.prepares() {
            return client.query_typed(&sql, &unnamed::typed(params)).await;
        }
        let statement = client.prepare_cached(&sql).await?;
        client.query(&statement, params).await
    }

    /// The same for a statement inside a transaction.
    async fn prepare_in(&self, tx: &Transaction<'_>, sql: &str) -> Result<(), tokio_postgres::Error> {
        if self.pool.prepares() {
            tx.prepare_cached(&self.sql(sql)).await?;
        }
        Ok(())
    }

    /// Runs one inside a transaction, without a deadline.
    async fn ask_in(
        &self,
        tx: &Transaction<'_>,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let sql = self.sql(sql);
        if !self.pool.prepares() {
            return tx.query_typed(&sql, &unnamed::typed(params)).await;
        }
        let statement = tx.prepare_cached(&sql).await?;
        tx.query(&statement, params).await
    }

    /// Runs statements on a connection; without an answer in time it is closed.
    async fn conclude<T>(
        &self,
        client: Busy,
        doing: &str,
        statements: impl AsyncFnOnce(&Busy) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        let answer = tokio::time::timeout(self.deadline, statements(&client)).await;
        let answer = answer.map_err(|_| self.gave_up(doing))?;
        match answer.as_ref().err().and_then(tokio_postgres::Error::code) {
            // The server became a standby and kept its connections: whoever tries again is to look for the primary.
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => self.pool.distrust_idle(),
            Some(code) if is_about_the_session(code.code()) => {}
            _ => client.answered(),
        }
        answer.map_err(|error| Error::from(error).context(doing))
    }

    /// Runs one step of a transaction under the deadline. When it fails, let go of the connection.
    pub(crate) async fn within_deadline<T, E>(&self, doing: &str, step: impl Future<Output = Result<T, E>>) -> Result<T>
    where
        Error: From<E>,
    {
        let answer = tokio::time::timeout(self.deadline, step).await.map_err(|_| self.gave_up(doing))?;
        answer.map_err(|error| Error::from(error).context(doing))
    }

    /// One connection went silent: those that lie idle beside it may have, and are not tried one deadline after the other.
    fn gave_up(&self, doing: &str) -> Error {
        self.pool.distrust_idle();
        Error::new(ErrorKind::OutcomeUnknown, format!("{doing}: no answer within {} s", self.deadline.as_secs_f32()))
    }

    /// The same in a READ COMMITTED transaction, whatever the role or the database begin theirs with.
    async fn query_committed(&self, doing: &str, sql: &str) -> Result<Vec<Row>> {
        let mut client = self.busy().await.map_err(|error| error.context(doing))?;
        let rows = async {
            let tx = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?;
            let rows = tx.query_typed(&self.sql(sql), &[]).await?;
            tx.commit().await?;
            Ok::<_, tokio_postgres::Error>(rows)
        };
        let rows = self.within_deadline(doing, rows).await?;
        client.answered();
        Ok(rows)
    }

    async fn query_one(&self, doing: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        let mut rows = self.query(doing, sql, params).await?;
        match rows.pop() {
            Some(row) if rows.is_empty() => Ok(row),
            _ => Err(Error::new(ErrorKind::Schema, format!("{doing}: the function did not answer with one row"))),
        }
    }
}

/// Whether a SQLSTATE speaks of the session or the server and not of the statement, so that the next user of the connection
/// would meet the same: the state of its transaction, what it may do, what the role was when it logged in, what it has
/// cached, the system behind it. A new one is what helps, if anything does.
fn is_about_the_session(code: &str) -> bool {
    matches!(&code[..2], "08" | "25" | "28" | "3D" | "57" | "58" | "XX") && code != "57014"
        || matches!(code, "0A000" | "26000" | "42501")
}
