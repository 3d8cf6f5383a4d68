//! The only place that calls the SQL functions. One file per station of a message; the SQL that changes state itself
//! lives in `migrations/`.

mod claim;
mod json;
mod lease;
mod observe;
mod operate;
mod publish;
mod settle;

use std::time::Duration;

use tokio_postgres::{Row, types::ToSql};

use crate::{
    connection::{Busy, Pool},
    error::{Error, ErrorKind, Result},
};

pub(crate) use claim::ClaimRequest;
pub use lease::ConsumerRow;
pub(crate) use lease::Registration;
pub use observe::TargetStats;
pub(crate) use publish::{publish_in, publish_many_in};
pub(crate) use settle::{Settlement, Verdict};

/// Longer than any statement of ours should take; when it passes, the connection is dropped, because a statement that may
/// be committing must never be cancelled.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(30);

/// The verbs, over pooled connections, each statement under a deadline.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: Pool,
}

impl Store {
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A pooled connection for statements that are not to be waited for by its next user.
    pub(crate) async fn busy(&self) -> Result<Busy> {
        Ok(Busy::from(self.pool.get().await?))
    }

    /// Runs one prepared statement. `doing` names it in errors ("claim messages").
    async fn query(&self, doing: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let client = self.busy().await.map_err(|error| error.context(doing))?;
        let answer = tokio::time::timeout(STATEMENT_DEADLINE, async {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, params).await
        })
        .await;
        conclude(client, doing, answer)
    }

    async fn query_one(&self, doing: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        let mut rows = self.query(doing, sql, params).await?;
        match rows.pop() {
            Some(row) if rows.is_empty() => Ok(row),
            _ => Err(Error::new(ErrorKind::Schema, format!("{doing}: the function did not answer with one row"))),
        }
    }
}

/// Turns a statement's answer into ours; a connection whose statement did not answer in time is dropped with its socket.
fn conclude<T>(
    client: Busy,
    doing: &str,
    answer: Result<Result<T, tokio_postgres::Error>, tokio::time::error::Elapsed>,
) -> Result<T> {
    let Ok(answer) = answer else {
        return Err(Error::new(
            ErrorKind::OutcomeUnknown,
            format!("{doing}: no answer within {} s", STATEMENT_DEADLINE.as_secs()),
        ));
    };
    client.answered();
    answer.map_err(|error| Error::from(error).context(doing))
}

/// Runs one step of a transaction under the deadline. When it passes, let go of the connection.
pub(crate) async fn within_deadline<T, E>(doing: &str, step: impl Future<Output = Result<T, E>>) -> Result<T>
where
    Error: From<E>,
{
    match tokio::time::timeout(STATEMENT_DEADLINE, step).await {
        Ok(answer) => answer.map_err(|error| Error::from(error).context(doing)),
        Err(_) => Err(Error::new(
            ErrorKind::OutcomeUnknown,
            format!("{doing}: no answer within {} s", STATEMENT_DEADLINE.as_secs()),
        )),
    }
}
