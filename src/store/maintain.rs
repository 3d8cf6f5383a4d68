//! Maintenance: what keeps the tables small, and the accounts of how messages were found.

use std::{collections::BTreeMap, time::Duration};

use super::Store;
use crate::{error::Result, message::MessageId, rows::MaintenanceDue};

const LEAD: &str = "select integration.lead($1, $2)";
const RESCUE_AND_PROMOTE: &str = "select rescued, promoted from integration.rescue_and_promote()";
const STEP_FORWARD: &str = "select integration.step_forward_forgotten($1)";
const FOLD: &str = "select integration.fold($1)";
const FOLD_AHEAD: &str = "select integration.fold_ahead()";
const RETIRE: &str = "select archived, purged, last_id from integration.retire($1, $2)";
const PURGE_EXPIRED: &str = "select integration.purge_expired($1)";
const CREATE_PARTITIONS: &str = "select integration.ensure_partitions()";
const DROP_PARTITIONS: &str = "select dropped, busy from integration.drop_old_partitions()";
const NOTE_CLEANED: &str = "select integration.note_cleaned()";
const CHECK_IS_DUE: &str = "select integration.check_is_due()";
const RECOUNT: &str = "select count(*) from integration.recount()";
const DUE: &str = "select task, object, count from integration.maintenance_due()";
const NOTE_FOUND: &str = "select integration.note_found($1, $2, $3, $4)";

/// Rows of one transaction.
pub(crate) const BATCH: i32 = 1000;
/// Deltas that are folded in one transaction.
pub(crate) const FOLD_SLICE: usize = 10_000;

/// How claimed messages of one target were found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FoundCounts {
    pub(crate) bells: i64,
    pub(crate) drains: i64,
    pub(crate) sweeps: i64,
}

/// What one batch of the walk over old messages did.
#[derive(Debug)]
pub(crate) struct Retired {
    pub(crate) archived: usize,
    pub(crate) purged: usize,
    /// Where to go on; `None`: the rest is too young.
    pub(crate) last_id: Option<MessageId>,
}

impl Store {
    /// Whether the caller does the maintenance for the next `lease`.
    pub(crate) async fn lead(&self, name: &str, lease: Duration) -> Result<bool> {
        let lease_ms = lease.as_millis() as i64;
        Ok(self.query_one("ask who does the maintenance", LEAD, &[&name, &lease_ms]).await?.try_get(0)?)
    }

    /// Rescues, and promotes messages of all targets; returns how many of each.
    pub(crate) async fn rescue_and_promote(&self) -> Result<(usize, usize)> {
        let row = self.query_one("rescue and promote", RESCUE_AND_PROMOTE, &[]).await?;
        let (rescued, promoted): (i32, i32) = (row.try_get("rescued")?, row.try_get("promoted")?);
        Ok((rescued as usize, promoted as usize))
    }

    /// Has the next ones of keys step forward that nobody has told, among a batch of what stands behind others; returns
    /// whether more of them stand there.
    pub(crate) async fn step_forward_forgotten(&self) -> Result<bool> {
        let looked: i32 =
            self.query_one("look who stands behind nothing", STEP_FORWARD, &[&BATCH]).await?.try_get(0)?;
        Ok(looked >= BATCH)
    }

    /// Adds up a slice of the counters' deltas; returns how many there were: fewer than [`FOLD_SLICE`] when none is left.
    pub(crate) async fn fold(&self) -> Result<usize> {
        let folded: i64 = self.query_one("fold the counters", FOLD, &[&(FOLD_SLICE as i32)]).await?.try_get(0)?;
        Ok(folded as usize)
    }

    /// Folds a slice before the counters are read, where many deltas wait and the session may.
    pub(super) async fn fold_ahead(&self) -> Result<()> {
        self.query("fold the counters", FOLD_AHEAD, &[]).await.map(drop)
    }

    /// Archives and purges what is due among the next messages after an id.
    pub(crate) async fn retire(&self, after: MessageId) -> Result<Retired> {
        let row = self.query_one("archive old messages", RETIRE, &[&after, &BATCH]).await?;
        let (archived, purged): (i32, i32) = (row.try_get("archived")?, row.try_get("purged")?);
        Ok(Retired { archived: archived as usize, purged: purged as usize, last_id: row.try_get("last_id")? })
    }

    /// Deletes a batch of rows whose time is over; returns how many.
    pub(crate) async fn purge_expired(&self) -> Result<usize> {
        let count: i32 = self.query_one("purge expired rows", PURGE_EXPIRED, &[&BATCH]).await?.try_get(0)?;
        Ok(count as usize)
    }

    /// Creates the partitions of the months to come; returns how many.
    pub(crate) async fn create_partitions(&self) -> Result<usize> {
        let count: i32 = self.query_one("create partitions", CREATE_PARTITIONS, &[]).await?.try_get(0)?;
        Ok(count as usize)
    }

    /// Drops partitions past retention; returns how many, and how many were in somebody's way.
    pub(crate) async fn drop_partitions(&self) -> Result<(usize, usize)> {
        let row = self.query_one("drop old partitions", DROP_PARTITIONS, &[]).await?;
        let (dropped, busy): (i32, i32) = (row.try_get("dropped")?, row.try_get("busy")?);
        Ok((dropped as usize, busy as usize))
    }

    /// Notes that a cleaning came to its end.
    pub(crate) async fn note_cleaned(&self) -> Result<()> {
        self.query("note the maintenance", NOTE_CLEANED, &[]).await.map(drop)
    }

    /// Compares the counters with the table and repairs them, if that was not done for a day; returns how many differed.
    pub(crate) async fn recount_daily(&self) -> Result<usize> {
        let is_due: bool = self.query_one("look when counters were checked", CHECK_IS_DUE, &[]).await?.try_get(0)?;
        if !is_due {
            return Ok(0);
        }
        let rows = self.query_committed("check the counters", RECOUNT).await?;
        let differences: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        Ok(differences as usize)
    }

    pub(crate) async fn maintenance_due(&self) -> Result<Vec<MaintenanceDue>> {
        let rows = self.query("look for what maintenance is due", DUE, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(MaintenanceDue {
                    task: row.try_get("task")?,
                    object: row.try_get("object")?,
                    count: row.try_get("count")?,
                })
            })
            .collect()
    }

    /// Adds to the accounts of how messages were found.
    pub(crate) async fn note_found(&self, counts: &BTreeMap<String, FoundCounts>) -> Result<()> {
        let targets: Vec<&str> = counts.keys().map(String::as_str).collect();
        let of = |pick: fn(&FoundCounts) -> i64| counts.values().map(pick).collect::<Vec<i64>>();
        let (bells, drains, sweeps) = (of(|c| c.bells), of(|c| c.drains), of(|c| c.sweeps));
        self.query("note how messages were found", NOTE_FOUND, &[&targets, &bells, &drains, &sweeps]).await.map(drop)
    }
}
