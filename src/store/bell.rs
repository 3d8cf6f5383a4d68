//! What the listener asks of another session: to ring, so that it finds out whether notifications of others arrive, and
//! who it is.

use super::Store;
use crate::error::Result;

/// The server frees what every listener has read of its notifications with notifications, and so never of a queue that is full;
/// with this question, too.
const RING: &str = "select pg_catalog.pg_notification_queue_usage(), pg_catalog.pg_notify($1, '')";

const BACKEND: &str = "select pg_catalog.pg_backend_pid()";

impl Store {
    /// Rings on a channel, once.
    pub(crate) async fn ring(&self, channel: &str) -> Result<()> {
        self.query("ring the listener", RING, &[&channel]).await.map(drop)
    }

    /// The server process that a statement meets.
    pub(crate) async fn backend(&self) -> Result<i32> {
        Ok(self.query_one("ask for the server process", BACKEND, &[]).await?.try_get(0)?)
    }
}
