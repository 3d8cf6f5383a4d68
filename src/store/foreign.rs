//! Other databases, which extracts read.

use std::{fmt, time::Duration};

use tokio::{sync::Mutex, time::timeout};
use tokio_postgres::{
    Client, IsolationLevel, Row, Transaction,
    types::{ToSql, Type},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    connection::Settings,
    error::{Error, ErrorKind, Result},
};

/// What decides how values are written, and that nobody there waits for us, or we for them.
const AS_HERE: &str = "set local search_path = pg_catalog, pg_temp; set local datestyle = 'ISO, YMD'; set local timezone = 'UTC'; \
    set local intervalstyle = postgres; set local extra_float_digits = 1; set local bytea_output = hex; set local row_security = off; \
    set local jit = off; set local lock_timeout = '2 s'; set local statement_timeout = '30 s'";
/// Longer than the server may take for one statement.
const WITHIN: Duration = Duration::from_secs(45);

/// Another database, for extracts to read: of PostgreSQL 13 or newer, in the name of the role that logs in there, in transactions that
/// change nothing. Makes one connection when it is first read, and another one after each failure; a pooler may stand between.
///
/// `Debug` shows nothing secret, and nothing of it is stored anywhere.
pub struct ForeignDatabase {
    settings: Settings,
    /// Not there while somebody uses it, so that one whose user gave up is closed.
    session: Mutex<Option<Session>>,
}

impl ForeignDatabase {
    /// Makes no connection yet. Of the settings, the schema means nothing.
    pub fn new(settings: Settings) -> Self {
        Self { settings: settings.fallback_application_name("doorbell extract"), session: Mutex::default() }
    }

    /// Does something there in a transaction that sees at each statement what is committed by then.
    pub(super) async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&Reading<'_>) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        let mut kept = self.session.lock().await;
        let mut session = match kept.take().filter(|session| !session.client.is_closed()) {
            Some(session) => session,
            None => Session::open(&self.settings).await.map_err(|error| error.context("the database that is read"))?,
        };
        let worked = timeout(WITHIN, session.read(work)).await;
        let late = |_| Error::new(ErrorKind::Timeout, "the database that is read does not answer");
        let read = worked.map_err(late)?.map_err(|error| refused(Error::from(error)))?;
        *kept = Some(session);
        Ok(read)
    }
}

impl fmt::Debug for ForeignDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForeignDatabase({})", self.settings)
    }
}

/// What a server says there is about what is read, not about our schema or our rights.
fn refused(error: Error) -> Error {
    let error = error.context("the database that is read");
    match error.kind() {
        _ if error.is_transient() => error,
        _ => Error::new(ErrorKind::Invalid, error.to_string()).with_source(error),
    }
}

struct Session {
    client: Client,
    _driver: AbortOnDropHandle<()>,
}

impl Session {
    async fn open(settings: &Settings) -> Result<Self> {
        let (client, messages) = settings.connect().await?;
        Ok(Self { client, _driver: AbortOnDropHandle::new(tokio::spawn(messages.drain())) })
    }

    async fn read<T>(
        &mut self,
        work: impl AsyncFnOnce(&Reading<'_>) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, tokio_postgres::Error> {
        let tx = self.client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(true);
        let reading = Reading(tx.start().await?);
        reading.0.batch_execute(AS_HERE).await?;
        let read = work(&reading).await?;
        reading.0.commit().await?;
        Ok(read)
    }
}

/// A transaction there. Statements have no names, so that any pooler may stand between.
pub(super) struct Reading<'a>(Transaction<'a>);

impl Reading<'_> {
    pub(super) async fn rows(
        &self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.0.query_typed(sql, params).await
    }

    /// The one document that a statement answers with; `None`: it found nothing.
    pub(super) async fn document(&self, sql: &str, of: &str) -> Result<Option<String>, tokio_postgres::Error> {
        // One that asks for nothing leaves the parameter unused.
        let rows = self.rows(&format!("select ({sql})::text"), &[(&of, Type::TEXT)]).await?;
        rows.first().map_or(Ok(None), |row| row.try_get(0))
    }

    /// How many rows the planner expects, if it says so.
    pub(super) async fn estimate(&self, sql: &str) -> Result<Option<f64>, tokio_postgres::Error> {
        let rows = self.rows(&format!("explain (format json) {sql}"), &[]).await?;
        let plan: Option<serde_json::Value> = rows.first().map(|row| row.try_get(0)).transpose()?;
        Ok(plan.and_then(|plan| plan.pointer("/0/Plan/Plan Rows")?.as_f64()))
    }
}
