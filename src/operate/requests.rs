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
}
