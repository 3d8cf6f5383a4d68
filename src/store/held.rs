//! Messages locked by a transaction of their own, from its first statement to its last.
//!
//! What can travel together does: the transaction begins with the look and ends with what becomes of the messages, a
//! round trip each.

use std::time::Duration;

use tokio_postgres::{Row, types::ToSql};

use super::{
    ClaimRequest, Looked, Ranges, Store,
    claim::{HOLD, looked, may},
    fence::{Claim, Fence},
    settle::COMPLETE_HELD,
};
use crate::{connection::Busy, error::Result, message::Found};

const LEASE_HELD: &str =
    "select * from integration.lease_held($1::text, $2::bigint[], $3::integer[], $4::timestamptz[])";

/// The transaction. Dropped, it closes its connection, and the server frees the messages.
#[derive(Debug)]
pub(crate) struct HeldTx {
    store: Store,
    client: Busy,
}

/// What its end did.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) completed: usize,
    /// Those of the messages to be leased that are.
    pub(crate) leased: Vec<Claim>,
}

impl Store {
    /// Locks up to `limit` messages in a transaction that is to be over after `cap`; `None`: not now, they are to be
    /// claimed.
    pub(crate) async fn hold(
        &self,
        request: &ClaimRequest<'_>,
        limit: usize,
        ranges: Option<&Ranges>,
        found: Found,
        cap: Duration,
    ) -> Result<Option<(HeldTx, Looked)>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let timeout = self.held_timeout(cap);
        let at = ranges.filter(|ranges| !ranges.is_everywhere());
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
        let tx = HeldTx { store: self.clone(), client: self.busy().await? };
        let holding = async {
            let (begun, rows) = futures::join!(tx.client.batch_execute(tx.client.begin()), tx.query(HOLD, &params));
            begun.and(rows)
        };
        let rows = self.within_deadline("hold messages", holding).await?;
        if !may(&rows) {
            tx.roll_back().await;
            return Ok(None);
        }
        let looked = looked(&rows, request, found)?;
        Ok(Some((tx, looked)))
    }
}

impl HeldTx {
    /// Frees what it holds.
    pub(crate) async fn roll_back(self) {
        if self.store.within_deadline("roll back", self.client.batch_execute("rollback")).await.is_ok() {
            self.client.answered();
        }
    }

    /// Completes some of the messages, makes leased ones of others, frees the rest, and commits.
    ///
    /// # Errors
    /// Nothing of it happened, unless it is the answer that was lost.
    pub(crate) async fn settle(self, owner: &str, done: &[Claim], leased: &[Claim]) -> Result<Ended> {
        let ending = async {
            // Before anything is sent: a statement that is still to be prepared would be overtaken by the commit.
            for (sql, claims) in [(COMPLETE_HELD, done), (LEASE_HELD, leased)] {
                if !claims.is_empty() {
                    self.store.prepare(&self.client, sql).await?;
                }
            }
            let (completed, leased, committed) = futures::join!(
                self.settle_some(COMPLETE_HELD, owner, done),
                self.settle_some(LEASE_HELD, owner, leased),
                self.client.batch_execute("commit"),
            );
            // A statement that failed has made the commit a rollback.
            let (completed, leased) = (completed?, leased?);
            committed.map(|()| (completed, leased))
        };
        let (completed, now_leased) = self.store.within_deadline("complete messages", ending).await?;
        self.client.answered();
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

    async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.store.ask(&self.client, sql, params).await
    }
}
