//! A notification of our own, by which the listener finds out whether those of others arrive.

use super::Store;
use crate::error::Result;

const RING: &str = "select pg_catalog.pg_notify($1, '')";

impl Store {
    /// Rings on a channel, once.
    pub(crate) async fn ring(&self, channel: &str) -> Result<()> {
        self.query("ring the listener", RING, &[&channel]).await.map(drop)
    }
}
