//! What operators do.

use super::Store;
use crate::{error::Result, message::MessageId};

const CANCEL: &str = "select * from integration.cancel($1, $2)";
const REDRIVE: &str = "select * from integration.redrive($1::bigint[])";
const PAUSE: &str = "select integration.pause($1, $2)";
const RESUME: &str = "select integration.resume($1)";

impl Store {
    pub(crate) async fn cancel(&self, ids: &[MessageId], reason: Option<&str>) -> Result<Vec<MessageId>> {
        let rows = self.query("cancel messages", CANCEL, &[&ids, &reason]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    pub(crate) async fn redrive(&self, ids: &[MessageId]) -> Result<Vec<MessageId>> {
        let rows = self.query("redrive messages", REDRIVE, &[&ids]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    pub(crate) async fn pause(&self, target: &str, reason: Option<&str>) -> Result<()> {
        self.query("pause the target", PAUSE, &[&target, &reason]).await?;
        Ok(())
    }

    pub(crate) async fn resume(&self, target: &str) -> Result<bool> {
        let row = self.query_one("resume the target", RESUME, &[&target]).await?;
        Ok(row.try_get(0)?)
    }
}
