//! Ordering keys.

use super::Store;
use crate::{
    error::Result,
    message::MessageId,
    rows::{KeyRow, KeyState},
};

const KEYS: &str = "select * from integration.waiting_keys($1, $2, $3)";
const BLOCKED: &str = "select target_app, ordering_key, staging_id, reason, waiting, since from integration.blocked_keys \
    where $1::text is null or target_app = $1 order by target_app, ordering_key, staging_id limit $2";
// As many as are worth telling from each other.
const COUNT_BLOCKED: &str = "select b.target_app, count(distinct b.ordering_key) from \
    (select target_app, ordering_key from integration.blocked_keys limit 10000) b group by b.target_app";
const UNBLOCK: &str = "select * from integration.unblock($1, $2, $3)";

impl Store {
    pub(crate) async fn keys(&self, target: &str, limit: u32, after: Option<&str>) -> Result<Vec<KeyRow>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows = self.query("read ordering keys", KEYS, &[&target, &limit, &after.unwrap_or_default()]).await?;
        let key = |row: &tokio_postgres::Row| {
            Ok(KeyRow {
                target: target.to_owned(),
                key: row.try_get("ordering_key")?,
                state: KeyState::from_sql(row.try_get("state")?),
                message: row.try_get("staging_id")?,
                reason: row.try_get("reason")?,
                waiting: row.try_get("waiting")?,
                since: row.try_get("since")?,
            })
        };
        rows.iter().map(key).collect()
    }

    pub(crate) async fn blocked_keys(&self, target: Option<&str>, limit: u32) -> Result<Vec<KeyRow>> {
        let rows = self.query("read blocked keys", BLOCKED, &[&target, &i64::from(limit)]).await?;
        let key = |row: &tokio_postgres::Row| {
            Ok(KeyRow {
                target: row.try_get("target_app")?,
                key: row.try_get("ordering_key")?,
                state: KeyState::Blocked,
                message: row.try_get("staging_id")?,
                reason: row.try_get("reason")?,
                waiting: row.try_get("waiting")?,
                since: row.try_get("since")?,
            })
        };
        rows.iter().map(key).collect()
    }

    pub(crate) async fn count_blocked_keys(&self) -> Result<Vec<(String, i64)>> {
        let rows = self.query("count blocked keys", COUNT_BLOCKED, &[]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// `verb`: redrive or cancel.
    pub(crate) async fn unblock(&self, target: &str, key: &str, verb: &str) -> Result<Vec<MessageId>> {
        let rows = self.query("unblock a key", UNBLOCK, &[&target, &key, &verb]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}
