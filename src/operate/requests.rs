//! Requests: whose publishers wait for the answer.

use super::Operator;
use crate::{error::Result, rows::WaitingRequest};

impl Operator {
    /// Requests whose time is not over and that have no answer yet, those whose time is over first, at most `limit` of them.
    /// Those that are kept whoever waits are not among them.
    ///
    /// # Errors
    /// The database's.
    pub async fn waiting_requests(&self, limit: u32) -> Result<Vec<WaitingRequest>> {
        self.core.store().waiting_requests(limit).await
    }

    /// How many of them there are for each target, of the 10,000 messages whose time is over first. Targets without any are
    /// left out.
    ///
    /// # Errors
    /// The database's.
    pub async fn count_waiting_requests(&self) -> Result<Vec<(String, i64)>> {
        self.core.store().count_waiting_requests().await
    }
}
