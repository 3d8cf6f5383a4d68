//! Looking, without changing anything.

use tokio_postgres::Row;

use super::Store;
use crate::{
    error::Result,
    rows::{BreakerRow, TargetState, TargetStats},
};

/// The columns of `integration.stats`, which `integration.target_states` has, too.
macro_rules! columns {
    () => {
        "s.target_app, s.pending, s.scheduled, s.processing, s.completed, s.failed, s.cancelled, \
         extract(epoch from s.oldest_age)::float8 as oldest_age, extract(epoch from s.empty_in)::float8 as empty_in, \
         extract(epoch from s.next_due_at - integration.clock())::float8 as next_due_in, \
         s.published_per_second::float8, s.completed_per_second::float8, s.errored_last_hour, s.rescued_last_hour, \
         s.failed_last_hour, s.sweep_share::float8"
    };
}
const STATS: &str = concat!("select ", columns!(), " from integration.stats s order by s.target_app");
const TARGETS: &str = concat!(
    "select ",
    columns!(),
    ", s.processes, s.workers, s.set_aside, s.gate_codes, s.gate_sentences from integration.target_states($1) s"
);

#[cfg(feature = "metrics")]
const SET_ASIDE: &str = "select target_app, count(*) from integration.set_aside_now group by target_app";
#[cfg(feature = "metrics")]
const ACTIONS: &str = "select target_app, action, sum(messages)::bigint from integration.current_totals \
    where action in ('coalesced', 'expired', 'unrouted', 'breaches') group by target_app, action";
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
    #[cfg(feature = "metrics")]
    pub(crate) async fn set_aside(&self) -> Result<Vec<(String, i64)>> {
        let rows = self.query("count what is set aside", SET_ASIDE, &[]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// How often what no process counts has happened to messages of each target, since the beginning.
    #[cfg(feature = "metrics")]
    pub(crate) async fn uncounted_actions(&self) -> Result<Vec<(String, String, i64)>> {
        let rows = self.query("count what happened", ACTIONS, &[]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
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
        self.fold_ahead().await?;
        self.query("read the counts", STATS, &[]).await?.iter().map(stats).collect()
    }

    /// One target, or all.
    pub(crate) async fn targets(&self, target: Option<&str>) -> Result<Vec<TargetState>> {
        self.fold_ahead().await?;
        let rows = self.query("list targets", TARGETS, &[&target]).await?;
        rows.iter()
            .map(|row| {
                let (codes, sentences): (Vec<String>, Vec<String>) =
                    (row.try_get("gate_codes")?, row.try_get("gate_sentences")?);
                Ok(TargetState {
                    stats: stats(row)?,
                    processes: row.try_get("processes")?,
                    workers: row.try_get("workers")?,
                    set_aside: row.try_get("set_aside")?,
                    closed_gates: codes.into_iter().zip(sentences).collect(),
                })
            })
            .collect()
    }
}

fn stats(row: &Row) -> Result<TargetStats> {
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
        next_due_in_seconds: row.try_get("next_due_in")?,
        published_per_second: row.try_get("published_per_second")?,
        completed_per_second: row.try_get("completed_per_second")?,
        errored_last_hour: row.try_get("errored_last_hour")?,
        rescued_last_hour: row.try_get("rescued_last_hour")?,
        failed_last_hour: row.try_get("failed_last_hour")?,
        sweep_share: row.try_get("sweep_share")?,
    })
}
