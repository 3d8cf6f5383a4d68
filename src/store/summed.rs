//! Messages summed up.

use std::{collections::BTreeMap, time::Duration};

use tokio_postgres::Row;

use super::Store;
use crate::{
    error::Result,
    rows::{BacklogRow, ErrorGroup, Traffic},
};

const ERRORS: &str = "select e.*, extract(epoch from integration.clock() - e.since)::float8 as since_age, \
    extract(epoch from integration.clock() - e.last)::float8 as last_age from integration.errors($1, $2) e";
const BACKLOG: &str = "select b.*, extract(epoch from integration.clock() - b.oldest_at)::float8 as oldest_age \
    from integration.backlog($1, $2) b";

const TRAFFIC: &str = "select t.at, t.action, t.messages from integration.traffic_of(make_interval(secs => $1), $2) t";

/// Up to here traffic is told by the minute, as `integration.traffic_of` has it.
const BY_THE_MINUTE: Duration = Duration::from_secs(3 * 3600);

impl Store {
    pub(crate) async fn traffic(&self, target: Option<&str>, span: Duration) -> Result<Traffic> {
        self.fold_ahead().await?;
        let rows = self.query("read the traffic", TRAFFIC, &[&span.as_secs_f64(), &target]).await?;
        let step = Duration::from_secs(if span <= BY_THE_MINUTE { 60 } else { 600 });
        let mut traffic = Traffic { step, actions: BTreeMap::new() };
        for row in rows {
            let actions = traffic.actions.entry(row.try_get("at")?).or_default();
            actions.insert(row.try_get("action")?, row.try_get("messages")?);
        }
        Ok(traffic)
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
