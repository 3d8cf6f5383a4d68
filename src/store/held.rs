//! Messages locked by a transaction of their own, from its first statement to its last.
//!
//! What can travel together does: the transaction begins with the look and ends with what becomes of the messages, a
//! round trip each. Where handlers are given the transaction, it begins before, and commits when all is known to be well.

use std::time::Duration;

use deadpool_postgres::Transaction;
use tokio_postgres::{Row, types::ToSql};

use super::{
    ClaimRequest, Looked, Ranges, Store,
    claim::{HOLD, looked, may},
    fence::{Claim, Fence},
    settle::COMPLETE_HELD,
};
use crate::{
    connection::Busy,
    error::{Error, ErrorKind, Result},
    message::Found,
};

const LEASE_HELD: &str =
    "select * from integration.lease_held($1::text, $2::bigint[], $3::integer[], $4::timestamptz[])";

/// The transaction. Where it has not come to its end, close the connection: the server rolls it back and frees the messages.
pub(crate) struct HeldTx<'a> {
    store: &'a Store,
    on: On<'a>,
}

/// Where its statements go.
enum On<'a> {
    Ours(&'a Busy),
    /// Handlers work in it.
    Handlers(Transaction<'a>),
}

/// What its end did.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) completed: usize,
    /// Those of the messages to be leased that are.
    pub(crate) leased: Vec<Claim>,
}

impl<'a> HeldTx<'a> {
    /// Begins one, for handlers to work in, or when it holds.
    pub(crate) async fn begin(store: &'a Store, client: &'a mut Busy, for_handlers: bool) -> Result<Self> {
        if !for_handlers {
            return Ok(Self { store, on: On::Ours(client) });
        }
        let tx = store.within_deadline("begin", client.build_handlers_transaction().start()).await?;
        Ok(Self { store, on: On::Handlers(tx) })
    }

    /// Where handlers work.
    pub(crate) fn handlers(&self) -> Option<&Transaction<'a>> {
        match &self.on {
            On::Ours(_) => None,
            On::Handlers(tx) => Some(tx),
        }
    }

    /// Locks up to `limit` messages. The transaction is to be over after `cap`. `None`: not now, they are to be claimed.
    pub(crate) async fn hold(
        &self,
        request: &ClaimRequest<'_>,
        limit: usize,
        ranges: Option<&Ranges>,
        found: Found,
        cap: Duration,
    ) -> Result<Option<Looked>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let at = ranges.filter(|ranges| !ranges.is_everywhere());
        // When the server ends a session that holds messages and has become silent.
        let timeout = (cap * 2 + self.store.deadline).as_millis().to_string();
        let params: [&(dyn ToSql + Sync); 12] = [
            &request.target,
            &limit,
            &request.record_types,
            &request.bytes_max,
            &at.map(|ranges| &ranges.lows),
            &at.map(|ranges| &ranges.highs),
            &at.map(|ranges| &ranges.after_at),
            &at.map(|ranges| &ranges.after_ids),
            &at.map(|ranges| &ranges.again_at),
            &at.map(|ranges| &ranges.again_ids),
            &ranges.is_some_and(|ranges| ranges.writers),
            &timeout,
        ];
        let holding = async {
            match &self.on {
                On::Ours(client) => {
                    let begin = client.batch_execute(client.begin());
                    let (begun, rows) = futures::join!(begin, self.query(HOLD, &params));
                    begun.and(rows)
                }
                On::Handlers(_) => self.query(HOLD, &params).await,
            }
        };
        let rows = self.store.within_deadline("hold messages", holding).await?;
        if may(&rows) { looked(&rows, request, found).map(Some) } else { Ok(None) }
    }

    /// Frees what it holds. An error: close the connection.
    pub(crate) async fn roll_back(self) -> Result<()> {
        let Self { store, on } = self;
        let rolling_back = async {
            match on {
                On::Ours(client) => client.batch_execute("rollback").await,
                On::Handlers(tx) => tx.rollback().await,
            }
        };
        store.within_deadline("roll back", rolling_back).await
    }

    /// Completes some of the messages, makes leased ones of others, frees the rest, and commits. Where handlers have worked
    /// in it, all are completed or nothing happens.
    ///
    /// # Errors
    /// Nothing of it happened, unless it is the answer that was lost. Close the connection.
    pub(crate) async fn settle(self, owner: &str, done: &[Claim], leased: &[Claim]) -> Result<Ended> {
        let ending = async {
            // Before anything is sent: a statement that is still to be prepared would be overtaken by the commit.
            for (sql, claims) in [(COMPLETE_HELD, done), (LEASE_HELD, leased)] {
                if !claims.is_empty() {
                    self.prepare(sql).await?;
                }
            }
            let commit = async {
                match &self.on {
                    On::Ours(client) => client.batch_execute("commit").await,
                    On::Handlers(_) => Ok(()),
                }
            };
            let (completed, leased, committed) = futures::join!(
                self.settle_some(COMPLETE_HELD, owner, done),
                self.settle_some(LEASE_HELD, owner, leased),
                commit,
            );
            // A statement that failed has made the commit a rollback.
            let (completed, leased) = (completed?, leased?);
            committed.map(|()| (completed, leased))
        };
        let (completed, now_leased) = self.store.within_deadline("complete messages", ending).await?;
        if let On::Handlers(tx) = self.on {
            if completed.len() < done.len() {
                return Err(Error::new(ErrorKind::LeaseLost, "a message that was held could not be completed"));
            }
            self.store.within_deadline("commit", tx.commit()).await?;
        }
        let now_leased: Vec<i64> = now_leased.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let leased = leased.iter().copied().filter(|claim| now_leased.contains(&claim.id())).collect();
        Ok(Ended { completed: completed.len(), leased })
    }

    async fn settle_some(&self, sql: &str, owner: &str, claims: &[Claim]) -> Result<Vec<Row>, tokio_postgres::Error> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let Fence { ids, attempts, created } = Fence::of(claims);
        self.query(sql, &[&owner, &ids, &attempts, &created]).await
    }

    async fn prepare(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        match &self.on {
            On::Ours(client) => self.store.prepare(client, sql).await,
            On::Handlers(tx) => self.store.prepare_in(tx, sql).await,
        }
    }

    async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, tokio_postgres::Error> {
        match &self.on {
            On::Ours(client) => self.store.ask(client, sql, params).await,
            On::Handlers(tx) => self.store.ask_in(tx, sql, params).await,
        }
    }
}
