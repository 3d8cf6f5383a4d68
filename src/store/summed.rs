//! Messages summed up.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio_postgres::Row;

use super::Store;
use crate::{
    error::Result,
    rows::{BacklogRow, ErrorGroup, ErrorRate, Traffic},
};

const ERRORS: &str = "select e.*, extract(epoch from integration.clock() - e.since)::float8 as since_age, \
    extract(epoch from integration.clock() - e.last)::float8 as last_age from integration.errors($1, $2) e";
const BACKLOG: &str = "select b.*, extract(epoch from integration.clock() - b.oldest_at)::float8 as oldest_age \
    from integration.backlog($1, $2) b";

// A row of the clock alone where nothing happened.
const TRAFFIC: &str = "select c.now, t.at, t.action, t.messages from (select integration.clock() as now) c \
    left join integration.traffic_of(make_interval(secs => $1), $2) t on true";
// With the targets known its index is theirs, whatever the planner knows of the time.
const TRAFFIC_OF_EACH: &str = "select t.target_app, c.now, t.minute, t.action, sum(t.messages)::bigint \
    from (select integration.clock() as now) c \
    join integration.current_traffic t on t.target_app = any ($2) and t.minute > c.now - make_interval(secs => $1) \
        and t.action = any ($3) \
    group by t.target_app, c.now, t.minute, t.action";
const ERROR_RATES: &str = "select source_app, total, failed from integration.error_rates where target_app = $1 \
    order by failed desc, total desc, source_app";

/// Up to here traffic is told by the minute, as `integration.traffic_of` has it.
const BY_THE_MINUTE: Duration = Duration::from_secs(3 * 3600);

impl Store {
    pub(crate) async fn traffic(&self, target: Option<&str>, span: Duration) -> Result<Traffic> {
        self.fold_ahead().await?;
        let rows = self.query("read the traffic", TRAFFIC, &[&span.as_secs_f64(), &target]).await?;
        let step = Duration::from_secs(if span <= BY_THE_MINUTE { 60 } else { 600 });
        let until = rows.first().map_or(Ok(SystemTime::UNIX_EPOCH), |row| row.try_get(0))?;
        let mut traffic = Traffic { step, actions: BTreeMap::new(), until };
        rows.iter().try_for_each(|row| add(&mut traffic, row, 1))?;
        Ok(traffic)
    }

    pub(crate) async fn traffic_of_each(
        &self,
        targets: &[String],
        actions: &[&str],
        span: Duration,
    ) -> Result<BTreeMap<String, Traffic>> {
        self.fold_ahead().await?;
        let mut all = BTreeMap::new();
        for row in self.query("read the traffic", TRAFFIC_OF_EACH, &[&span.as_secs_f64(), &targets, &actions]).await? {
            let until = row.try_get(1)?;
            let empty = || Traffic { step: Duration::from_secs(60), actions: BTreeMap::new(), until };
            add(all.entry(row.try_get(0)?).or_insert_with(empty), &row, 2)?;
        }
        Ok(all)
    }

    pub(crate) async fn error_rates(&self, target: &str) -> Result<Vec<ErrorRate>> {
        let rows = self.query("read error rates", ERROR_RATES, &[&target]).await?;
        let rate =
            |row: &Row| Ok(ErrorRate { source: row.try_get(0)?, published: row.try_get(1)?, failed: row.try_get(2)? });
        rows.iter().map(rate).collect()
    }

    pub(crate) async fn errors(&self, target: Option<&str>, limit: u32) -> Result<Vec<ErrorGroup>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows = self.query("sum up errors", ERRORS, &[&target, &limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(ErrorGroup {
                    target: row.try_get("target_app")?,
                    reason_like: row.try_get("reason_like")?,
                    failed: row.try_get("failed")?,
                    failed_again: row.try_get("failed_again")?,
                    retrying: row.try_get("retrying")?,
                    since: row.try_get("since")?,
                    last: row.try_get("last")?,
                    ages: (age(row, "since_age")?, age(row, "last_age")?),
                    example: row.try_get("example")?,
                    all_seen: row.try_get("all_seen")?,
                })
            })
            .collect()
    }

    pub(crate) async fn backlog(&self, target: Option<&str>, limit: u32) -> Result<Vec<BacklogRow>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows = self.query("sum up the backlog", BACKLOG, &[&target, &limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(BacklogRow {
                    target: row.try_get("target_app")?,
                    record_type: row.try_get("record_type")?,
                    source: row.try_get("source_app")?,
                    status: row.try_get::<_, &str>("status")?.parse()?,
                    messages: row.try_get("messages")?,
                    oldest_at: row.try_get("oldest_at")?,
                    oldest_age: age(row, "oldest_age")?,
                })
            })
            .collect()
    }
}

/// Nothing for what lies in the future.
fn age(row: &Row, name: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(row.try_get(name)?).unwrap_or_default())
}

/// Adds what a row says of one step, from this column on: when, what, how often.
fn add(traffic: &mut Traffic, row: &Row, column: usize) -> Result<()> {
    if let Some(at) = row.try_get::<_, Option<SystemTime>>(column)? {
        traffic.actions.entry(at).or_default().insert(row.try_get(column + 1)?, row.try_get(column + 2)?);
    }
    Ok(())
}
