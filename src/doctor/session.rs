//! The doctor's own connection: one that a pool never sees, in read-only transactions with short limits.

use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    connection::Settings,
    error::{Error, ErrorKind, Result},
    migrate,
    schema::Schema,
};

/// Whoever holds a lock that even reading waits for is not to be joined by a queue behind us.
const LIMITS: &str = "set local statement_timeout = '10 s'; set local lock_timeout = '2 s'";

pub(super) struct Session {
    client: Client,
    schema: Schema,
    _driver: AbortOnDropHandle<()>,
}

impl Session {
    pub(super) async fn open(settings: &Settings) -> Result<Self> {
        let (client, messages) = settings.connect().await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(messages.drain()));
        Ok(Self { client, schema: settings.schema().clone(), _driver: driver })
    }

    /// The schema that is looked at: fixes name it.
    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// One query in a transaction of its own, without prepared statements, so that it works behind any pooler.
    pub(super) async fn rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        let tx = self.client.build_transaction().read_only(true).start().await?;
        tx.batch_execute(&format!("{}{LIMITS}", migrate::PREAMBLE)).await?;
        let rows = tx.query_typed(&self.schema.sql(sql), &[]).await?;
        tx.commit().await?;
        Ok(rows)
    }

    pub(super) async fn row(&mut self, sql: &str) -> Result<Row> {
        let mut rows = self.rows(sql).await?;
        rows.pop().ok_or_else(|| Error::new(ErrorKind::Schema, "a query of the doctor found no row"))
    }

    /// One call with one text, in a transaction that may write.
    pub(super) async fn call(&mut self, sql: &str, text: &str) -> Result<Vec<Row>> {
        let tx = self.client.transaction().await?;
        tx.batch_execute(LIMITS).await?;
        let rows = tx.query_typed(&self.schema.sql(sql), &[(&text as &(dyn ToSql + Sync), Type::TEXT)]).await?;
        tx.commit().await?;
        Ok(rows)
    }

    /// What the server says against a statement, if anything.
    pub(super) async fn says(&mut self, sql: &str) -> Result<Option<String>> {
        match self.client.batch_execute(sql).await.map_err(Error::from) {
            Ok(()) => Ok(None),
            Err(error) if error.sqlstate().is_some() => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Statements with one text each, in a transaction that may write and is rolled back: how many rows each gave, until one
    /// is refused.
    pub(super) async fn tried(&mut self, statements: &[&str], text: &str) -> Result<Vec<Result<usize>>> {
        let tx = self.client.transaction().await?;
        tx.batch_execute(LIMITS).await?;
        let mut answers = Vec::new();
        for statement in statements {
            let rows = tx.query_typed(&self.schema.sql(statement), &[(&text as &(dyn ToSql + Sync), Type::TEXT)]).await;
            let refused = rows.is_err();
            answers.push(rows.map(|rows| rows.len()).map_err(Error::from));
            if refused {
                break;
            }
        }
        tx.rollback().await?;
        Ok(answers)
    }
}

/// A name as SQL takes it.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Seconds, for people.
pub(super) fn age(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// Bytes, for people.
pub(super) fn size(bytes: i64) -> String {
    match bytes as f64 {
        b if b < 1e6 => format!("{:.0} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}
