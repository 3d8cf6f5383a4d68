//! Looking, without changing anything.

use std::time::Duration;

use serde::Serialize;

use super::Store;
use crate::error::Result;

const STATS: &str = "select target_app, pending, scheduled, processing, completed, failed, cancelled, \
    extract(epoch from oldest_age)::float8 from integration.stats order by target_app";

const BREAKERS: &str = "select breaker_key, state from integration.breakers order by breaker_key";
const PING: &str = "select integration.lock_class()";
const BELL_IS_OFF: &str =
    "select exists (select from integration.targets t where t.target_app = $1 and t.bell = 'off')";

// Literal statuses, so that the partial indexes serve it.
const IS_DRAINED: &str = "select not exists (select from integration.data_staging d where d.target_app = $1 \
        and d.status = 'pending' and ($2::text[] is null or d.record_type = any ($2))) \
    and not exists (select from integration.data_staging d where d.target_app = $1 \
        and d.status = 'processing' and ($2::text[] is null or d.record_type = any ($2))) \
    and not exists (select from integration.data_staging d where d.target_app = $1 \
        and d.status = 'scheduled' and d.available_at <= integration.clock() \
        and ($2::text[] is null or d.record_type = any ($2)))";

/// The messages of one target, by status.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TargetStats {
    /// The target.
    pub target: String,
    /// Could be claimed now.
    pub pending: i64,
    /// Wait for their time.
    pub scheduled: i64,
    /// Claimed and not settled.
    pub processing: i64,
    /// Handled, not yet archived.
    pub completed: i64,
    /// Dead letters.
    pub failed: i64,
    /// Stopped by an operator.
    pub cancelled: i64,
    /// Age in seconds of the oldest pending message; `None` when nothing is pending.
    pub oldest_age_seconds: Option<f64>,
}

impl TargetStats {
    /// Age of the oldest pending message.
    pub fn oldest_age(&self) -> Option<Duration> {
        self.oldest_age_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}

/// A circuit breaker that was ever tripped.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BreakerRow {
    /// A target, or what several targets name as their `breaker_key`.
    pub key: String,
    /// `closed`, `open` or `half_open`.
    pub state: String,
}

impl Store {
    pub(crate) async fn breakers(&self) -> Result<Vec<BreakerRow>> {
        let rows = self.query("list breakers", BREAKERS, &[]).await?;
        rows.iter().map(|row| Ok(BreakerRow { key: row.try_get(0)?, state: row.try_get(1)? })).collect()
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
                    target: row.try_get(0)?,
                    pending: row.try_get(1)?,
                    scheduled: row.try_get(2)?,
                    processing: row.try_get(3)?,
                    completed: row.try_get(4)?,
                    failed: row.try_get(5)?,
                    cancelled: row.try_get(6)?,
                    oldest_age_seconds: row.try_get(7)?,
                })
            })
            .collect()
    }
}
