//! What operators do.

use std::time::Duration;

use tokio_postgres::{Transaction, types::Type};

use super::Store;
use crate::{error::Result, message::MessageId};

const CANCEL: &str = "select * from integration.cancel($1, $2)";
const REDRIVE: &str = "select * from integration.redrive_many($1::bigint[], make_interval(secs => $2))";
const RETRY: &str = "select * from integration.retry($1)";
const OPEN_BREAKER: &str = "select integration.open_breaker($1, $2, make_interval(secs => $3))";
const CLOSE_BREAKER: &str = "select integration.close_breaker($1, $2)";
const MOVE: &str = "select * from integration.move($1, $2)";
const EVICT: &str = "select integration.evict($1)";
const SETTINGS: &str = "select (to_jsonb(s) - 'only_row')::text from integration.settings s";
const TARGET: &str = "select integration.target($1)::text";
const SET_TARGET: &str = "select integration.set_target($1, $2::text::jsonb)::text";
const FORGET_TARGET: &str = "select integration.forget_target($1)";
const PAUSE: &str = "select integration.pause($1, $2, make_interval(secs => $3))";
const RESUME: &str = "select integration.resume($1)";

impl Store {
    pub(crate) async fn cancel(&self, ids: &[MessageId], reason: Option<&str>) -> Result<Vec<MessageId>> {
        let rows = self.query("cancel messages", CANCEL, &[&ids, &reason]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// With a spread they are due one after another within that time.
    pub(crate) async fn redrive(&self, ids: &[MessageId], spread: Option<Duration>) -> Result<Vec<MessageId>> {
        let seconds = spread.map(|spread| spread.as_secs_f64());
        let rows = self.query("redrive messages", REDRIVE, &[&ids, &seconds]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    pub(crate) async fn retry(&self, ids: &[MessageId]) -> Result<Vec<MessageId>> {
        let rows = self.query("retry messages", RETRY, &[&ids]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Redrives one message in the caller's transaction.
    pub(crate) async fn redrive_in(&self, tx: &Transaction<'_>, id: MessageId) -> Result<()> {
        tx.query_typed(&self.sql("select integration.redrive($1)"), &[(&id, Type::INT8)]).await?;
        Ok(())
    }

    pub(crate) async fn open_breaker(&self, key: &str, reason: Option<&str>, for_: Option<Duration>) -> Result<()> {
        let seconds = for_.map(|d| d.as_secs_f64());
        self.query("open the breaker", OPEN_BREAKER, &[&key, &reason, &seconds]).await?;
        Ok(())
    }

    pub(crate) async fn close_breaker(&self, key: &str, reason: Option<&str>) -> Result<bool> {
        let row = self.query_one("close the breaker", CLOSE_BREAKER, &[&key, &reason]).await?;
        Ok(row.try_get(0)?)
    }

    pub(crate) async fn move_to(&self, ids: &[MessageId], target: &str) -> Result<Vec<MessageId>> {
        let rows = self.query("move messages", MOVE, &[&ids, &target]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    pub(crate) async fn evict(&self, owner: &str) -> Result<Option<usize>> {
        let row = self.query_one("evict the process", EVICT, &[&owner]).await?;
        Ok(row.try_get::<_, Option<i32>>(0)?.map(|count| count as usize))
    }

    pub(crate) async fn settings(&self) -> Result<String> {
        Ok(self.query_one("show the settings", SETTINGS, &[]).await?.try_get(0)?)
    }

    pub(crate) async fn target(&self, target: &str) -> Result<Option<String>> {
        Ok(self.query_one("show the target", TARGET, &[&target]).await?.try_get(0)?)
    }

    pub(crate) async fn set_target(&self, target: &str, settings: &str) -> Result<String> {
        Ok(self.query_one("change the target", SET_TARGET, &[&target, &settings]).await?.try_get(0)?)
    }

    pub(crate) async fn forget_target(&self, target: &str) -> Result<bool> {
        Ok(self.query_one("forget the target", FORGET_TARGET, &[&target]).await?.try_get(0)?)
    }

    pub(crate) async fn pause(&self, target: &str, reason: Option<&str>, for_: Option<Duration>) -> Result<()> {
        let seconds = for_.map(|d| d.as_secs_f64());
        self.query("pause the target", PAUSE, &[&target, &reason, &seconds]).await?;
        Ok(())
    }

    pub(crate) async fn resume(&self, target: &str) -> Result<bool> {
        let row = self.query_one("resume the target", RESUME, &[&target]).await?;
        Ok(row.try_get(0)?)
    }
}
