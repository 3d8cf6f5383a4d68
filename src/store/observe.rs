//! Looking, without changing anything.

use super::Store;
use crate::{
    error::Result,
    rows::{BreakerRow, TargetStats},
};

const STATS: &str = "select target_app, pending, scheduled, processing, completed, failed, cancelled, \
    extract(epoch from oldest_age)::float8 as oldest_age, extract(epoch from empty_in)::float8 as empty_in \
    from integration.stats order by target_app";

const SET_ASIDE: &str = "select target_app, count(*) from integration.set_aside_now group by target_app";
const BREAKERS: &str = "select breaker_key, state from integration.breakers order by breaker_key";
const PING: &str = "select integration.lock_class()";
const BELL_IS_OFF: &str =
    "select exists (select from integration.targets t where t.target_app = $1 and t.bell = 'off')";

const IS_DRAINED: &str = "select integration.is_drained($1, $2)";

impl Store {
    pub(crate) async fn breakers(&self) -> Result<Vec<BreakerRow>> {
        let rows = self.query("list breakers", BREAKERS, &[]).await?;
        rows.iter()
            .map(|row| Ok(BreakerRow { key: row.try_get("breaker_key")?, state: row.try_get("state")? }))
            .collect()
    }

    /// How many messages of each target are set aside.
    pub(crate) async fn set_aside(&self) -> Result<Vec<(String, i64)>> {
        let rows = self.query("count what is set aside", SET_ASIDE, &[]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// One round trip, which needs the schema.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.query("ping", PING, &[]).await.map(drop)
    }

    /// Whether consumers of the target are to sweep and never to be rung.
    pub(crate) async fn bell_is_off(&self, target: &str) -> Result<bool> {
        Ok(self.query_one("ask for the bell's mode", BELL_IS_OFF, &[&target]).await?.try_get(0)?)
    }

    pub(crate) async fn is_drained(&self, target: &str, record_types: Option<&[String]>) -> Result<bool> {
        let row = self.query_one("look for work", IS_DRAINED, &[&target, &record_types]).await?;
        Ok(row.try_get(0)?)
    }

    pub(crate) async fn stats(&self) -> Result<Vec<TargetStats>> {
        let rows = self.query("read the counts", STATS, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(TargetStats {
                    target: row.try_get("target_app")?,
                    pending: row.try_get("pending")?,
                    scheduled: row.try_get("scheduled")?,
                    processing: row.try_get("processing")?,
                    completed: row.try_get("completed")?,
                    failed: row.try_get("failed")?,
                    cancelled: row.try_get("cancelled")?,
                    oldest_age_seconds: row.try_get("oldest_age")?,
                    empty_in_seconds: row.try_get("empty_in")?,
                })
            })
            .collect()
    }
}
