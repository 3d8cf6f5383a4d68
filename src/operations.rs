//! What operators do: look for messages, ask why they wait, put them back, stop and go on. The program's commands are these.

use std::time::Duration;

use crate::{
    broker::Broker,
    error::Result,
    filter::{Filter, Order},
    follow::Follower,
    message::MessageId,
    store::{AuditEvent, ConsumerRow, Explanation, Page, StoredMessage, TargetState},
};

impl Broker {
    /// The messages that a filter names, without their payloads, at most `limit` of them. `order` `None`: as they are claimed
    /// for pending ones, next due first for scheduled ones, else newest first. For the next page give `after` what
    /// [`Page::next`] was. `integration.list` says which filters are fast on a large table.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for an order that the filter's status does not have, or a cursor of another
    /// order; else the database's.
    pub async fn list(&self, filter: &Filter, order: Option<Order>, limit: u32, after: Option<&str>) -> Result<Page> {
        self.store().list(filter, order, limit, after).await
    }

    /// The ids of all messages that a filter names, or of the first `limit`: what to [`redrive`](Self::redrive),
    /// [`retry`](Self::retry) or [`cancel`](Self::cancel). By id; with a target or a limit, pending ones as they are claimed
    /// and scheduled ones as they are due. Read in pages, so what changes meanwhile may be in it or not.
    ///
    /// # Errors
    /// The database's.
    pub async fn find_ids(&self, filter: &Filter, limit: Option<u32>) -> Result<Vec<MessageId>> {
        self.store().find_ids(filter, limit).await
    }

    /// One message in full, also from the archive; its payload only where it is asked for. `None`: there is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn show(&self, id: MessageId, with_payload: bool) -> Result<Option<StoredMessage>> {
        self.store().show(id, with_payload).await
    }

    /// Why a message is not running: the first is the cause, further ones would hold it when that is gone. Never empty: that
    /// there is no such message, or that nothing holds it, is an answer, too.
    ///
    /// # Errors
    /// The database's.
    pub async fn explain(&self, id: MessageId) -> Result<Vec<Explanation>> {
        self.store().explain(id).await
    }

    /// Every target that has messages, settings or consumers, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn targets(&self) -> Result<Vec<TargetState>> {
        self.store().targets().await
    }

    /// The registered processes, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn consumers(&self) -> Result<Vec<ConsumerRow>> {
        self.store().consumers().await
    }

    /// The life of one message as the audit log has it, oldest first; also after it was archived or deleted. Empty when
    /// nothing was written about it (the level is `outcomes` by default).
    ///
    /// # Errors
    /// The database's.
    pub async fn history(&self, id: MessageId) -> Result<Vec<AuditEvent>> {
        self.store().history(id).await
    }

    /// Follows new messages and changes of status of one target, or of all.
    pub fn follow(&self, target: Option<&str>) -> Follower {
        Follower::new(self.store().clone(), target.map(str::to_owned))
    }

    /// Tries messages again now: scheduled ones are pending at once and keep the retries they have used, failed ones are
    /// redriven. Returns the ids that were. Each call is one transaction that holds the messages' locks: a thousand or so at
    /// a time, as the next two.
    ///
    /// # Errors
    /// The database's.
    pub async fn retry(&self, ids: &[MessageId]) -> Result<Vec<MessageId>> {
        self.store().retry(ids).await
    }

    /// Puts ended messages back (failed, cancelled, completed) with all their retries; returns the ids that were.
    ///
    /// # Errors
    /// The database's.
    pub async fn redrive(&self, ids: &[MessageId]) -> Result<Vec<MessageId>> {
        self.store().redrive(ids).await
    }

    /// Puts one ended message back inside the caller's transaction, for audited recovery.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no such message,
    /// [`IllegalTransition`](crate::ErrorKind::IllegalTransition) when it has not ended. The transaction can then only be
    /// rolled back.
    pub async fn redrive_in(&self, tx: &tokio_postgres::Transaction<'_>, id: MessageId) -> Result<()> {
        self.store().redrive_in(tx, id).await
    }

    /// Cancels messages that have not ended; one that is running finds its lease lost. Returns the ids that were.
    ///
    /// # Errors
    /// The database's.
    pub async fn cancel(&self, ids: &[MessageId], reason: Option<&str>) -> Result<Vec<MessageId>> {
        self.store().cancel(ids, reason).await
    }

    /// Stops claiming for a target, fleet-wide and across restarts.
    ///
    /// # Errors
    /// The database's.
    pub async fn pause(&self, target: &str, reason: Option<&str>) -> Result<()> {
        self.store().pause(target, reason).await
    }

    /// Lets a paused target be claimed again; false when it was not paused.
    ///
    /// # Errors
    /// The database's.
    pub async fn resume(&self, target: &str) -> Result<bool> {
        self.store().resume(target).await
    }

    /// Opens a breaker by hand: nothing it guards is claimed, fleet-wide, until canaries come back well after `reopen`, or
    /// until it is closed by hand where that is `None`. The key is a target's name or the `breaker_key` of its settings.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_breaker(&self, key: &str, reason: Option<&str>, reopen: Option<Duration>) -> Result<()> {
        self.store().open_breaker(key, reason, reopen).await
    }

    /// Closes a breaker by hand; false when it was closed.
    ///
    /// # Errors
    /// The database's.
    pub async fn close_breaker(&self, key: &str, reason: Option<&str>) -> Result<bool> {
        self.store().close_breaker(key, reason).await
    }
}
