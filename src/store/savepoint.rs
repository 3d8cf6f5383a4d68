//! Undoing what one of several handlers did in a transaction that holds messages.

use std::{borrow::Cow, future::ready, task::Poll, time::Duration};

use deadpool_postgres::Transaction;
use futures::{FutureExt, future::BoxFuture, poll};

use super::Store;
use crate::error::Result;

/// Sets the savepoint anew.
const NEXT: &str = "release savepoint doorbell; savepoint doorbell";
const UNDO: &str = "rollback to savepoint doorbell";
/// What follows are statements of ours.
const RELEASE: &str = "release savepoint doorbell; set local statement_timeout to default";
/// In a transaction that has failed before.
const FAILED: &str = "25P02";

/// The only one of a transaction, which moves on with each handler.
pub(crate) struct Savepoint<'a> {
    store: &'a Store,
    tx: &'a Transaction<'a>,
    limit: Duration,
    /// That has not been waited for.
    answer: Option<BoxFuture<'a, Result<(), tokio_postgres::Error>>>,
    count: usize,
}

impl Store {
    /// Not set yet. `limit`: how long one statement after it may take.
    pub(crate) fn savepoint<'a>(&'a self, tx: &'a Transaction<'a>, limit: Duration) -> Savepoint<'a> {
        Savepoint { store: self, tx, limit, answer: None, count: 0 }
    }
}

impl Savepoint<'_> {
    /// Sends it, before whatever is sent next. Does not wait for the answer.
    pub(crate) async fn set(&mut self) {
        let sql = match self.count {
            0 => format!("set local statement_timeout = {}; savepoint doorbell", self.limit.as_millis()).into(),
            _ => NEXT.into(),
        };
        self.count += 1;
        self.send(sql).await;
    }

    /// How often it was set.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether the transaction had not failed when what was sent last was executed. If it had, the savepoint is where it
    /// was before.
    pub(crate) async fn was_well(&mut self) -> Result<bool> {
        let Some(answer) = self.answer.take() else { return Ok(true) };
        match self.store.within_deadline("set a savepoint", answer).await {
            Err(error) if error.sqlstate() == Some(FAILED) => Ok(false),
            answer => answer.map(|()| true),
        }
    }

    /// Undoes what was done since it was set, and stays.
    pub(crate) async fn undo(&mut self) -> Result<()> {
        self.store.within_deadline("roll back to a savepoint", self.tx.batch_execute(UNDO)).await
    }

    /// Sends that what was done since it was set, if it was, is not to be undone any more.
    pub(crate) async fn release(&mut self) {
        if self.count > 0 {
            self.send(RELEASE.into()).await;
        }
    }

    async fn send(&mut self, sql: Cow<'static, str>) {
        let tx = self.tx;
        let mut answer = async move { tx.batch_execute(&sql).await }.boxed();
        // Polled once, it is on its way.
        self.answer = Some(match poll!(&mut answer) {
            Poll::Ready(answer) => ready(answer).boxed(),
            Poll::Pending => answer,
        });
    }
}
