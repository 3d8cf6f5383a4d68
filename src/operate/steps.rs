//! Steps: parts of a handler that are done once.

use super::Operator;
use crate::{error::Result, message::MessageId, rows::SavedStep};

impl Operator {
    /// Which steps of a message's handling are done, those of before it was redriven, too, the oldest first; what they returned
    /// only on demand, as payloads are. None for an archived message: steps are deleted with it.
    ///
    /// # Errors
    /// The database's.
    pub async fn steps(&self, id: MessageId, with_outputs: bool) -> Result<Vec<SavedStep>> {
        self.core.store().saved_steps(id, with_outputs).await
    }
}
