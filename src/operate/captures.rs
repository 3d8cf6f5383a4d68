//! Captures: tables of applications as sources.

use super::Operator;
use crate::{
    error::Result,
    rows::{Capture, CaptureRow},
};

impl Operator {
    /// Captures a table: from now on every change of it is published, in the transaction that makes it, as
    /// `{"table", "op", "new", "old"}`. The ordering key is the row's primary key, so that changes of a row are handled in order.
    /// Whoever writes there needs no right here. For a table that is captured already it changes how: false.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for what is no ordinary table, or has no primary key, or not such a column;
    /// [`Schema`](crate::ErrorKind::Schema) when there is no such table; [`Forbidden`](crate::ErrorKind::Forbidden) for who does
    /// not own it; else the database's, transient while writers are in the way.
    pub async fn capture(&self, capture: &Capture) -> Result<bool> {
        self.core.store().capture(capture).await
    }

    /// Publishes no more changes of a table; what was published stays. False: it was not captured.
    ///
    /// # Errors
    /// As [`capture`](Self::capture).
    pub async fn uncapture(&self, table: &str) -> Result<bool> {
        self.core.store().uncapture(table).await
    }

    /// The tables that are captured, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn captures(&self) -> Result<Vec<CaptureRow>> {
        self.core.store().captures().await
    }
}
