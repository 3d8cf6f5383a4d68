//! Leases of the process: registrant, heartbeat, rescue.

use std::time::{Duration, SystemTime};

use super::Store;
use crate::{error::Result, message::MessageId};

const REGISTER: &str = "select integration.register($1, $2, $3, $4, $5, $6::text::jsonb, $7)";
const BEAT: &str = "select integration.beat($1, $2)";
const RESCUE: &str = "select integration.rescue($1, $2, $3)";
const DEREGISTER: &str = "select integration.deregister($1)";
const GIVE_BACK: &str = "select integration.give_back($1, $2, $3)";
const CONSUMERS: &str = "select c.incarnation, c.host, c.pid, c.application, c.version, c.targets::text, c.started_at, c.beat_at, \
    c.lease_until > integration.clock(), extract(epoch from integration.clock() - c.beat_at)::float8, coalesce(h.processing, 0) \
    from integration.consumers c \
    left join (select d.claimed_by, count(*) as processing from integration.data_staging d \
         where d.status = 'processing' group by d.claimed_by) h on h.claimed_by = c.incarnation \
    order by c.started_at, c.incarnation";

/// A process whose session lock is free is declared dead once it has not beaten for this long.
const RESCUE_GRACE: Duration = Duration::from_millis(1500);
const RESCUE_LIMIT: i32 = 1000;

/// Who a process says it is.
#[derive(Debug)]
pub(crate) struct Registrant<'a> {
    pub(crate) owner: &'a str,
    pub(crate) host: &'a str,
    pub(crate) application: &'a str,
    /// JSON: what its consumers accept.
    pub(crate) targets: &'a str,
    pub(crate) lease: Duration,
}

/// A registered process, as the database sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerRow {
    /// Unique per start of a process.
    pub incarnation: String,
    /// Where it runs.
    pub host: String,
    /// Its process id there.
    pub pid: i32,
    /// Its application_name.
    pub application: String,
    /// Doorbell's version in it.
    pub version: String,
    /// What its consumers accept, as JSON.
    pub targets: String,
    /// When it registered.
    pub started_at: SystemTime,
    /// Its last heartbeat.
    pub beat_at: SystemTime,
    /// Whether its lease still runs.
    pub alive: bool,
    /// Seconds since its last heartbeat, by the server's clock.
    pub beat_age_seconds: f64,
    /// Messages that it holds.
    pub processing: i64,
}

impl ConsumerRow {
    /// The targets it consumes, by name.
    pub fn target_names(&self) -> Vec<String> {
        serde_json::from_str::<std::collections::BTreeMap<String, serde::de::IgnoredAny>>(&self.targets)
            .map(|targets| targets.into_keys().collect())
            .unwrap_or_default()
    }
}

impl Store {
    pub(crate) async fn register(&self, registrant: &Registrant<'_>) -> Result<()> {
        let pid = std::process::id() as i32;
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
            &registrant.owner,
            &registrant.host,
            &pid,
            &registrant.application,
            &env!("CARGO_PKG_VERSION"),
            &registrant.targets,
            &millis(registrant.lease),
        ];
        self.query("register the process", REGISTER, &params).await?;
        Ok(())
    }

    /// False: the owner was rescued from in the meantime.
    pub(crate) async fn beat(&self, owner: &str, lease: Duration) -> Result<bool> {
        let row = self.query_one("heartbeat", BEAT, &[&owner, &millis(lease)]).await?;
        Ok(row.try_get(0)?)
    }

    /// Returns the messages of dead consumers; `full` also looks for single leases that ran out. Returns how many.
    pub(crate) async fn rescue(&self, full: bool) -> Result<usize> {
        let mut rescued = 0;
        loop {
            let row = self.query_one("rescue", RESCUE, &[&millis(RESCUE_GRACE), &RESCUE_LIMIT, &full]).await?;
            let count: i32 = row.try_get(0)?;
            rescued += count as usize;
            if count < RESCUE_LIMIT {
                return Ok(rescued);
            }
        }
    }

    /// Gives back what the owner still has; returns how many messages that were.
    pub(crate) async fn deregister(&self, owner: &str) -> Result<usize> {
        let row = self.query_one("deregister the process", DEREGISTER, &[&owner]).await?;
        let count: i32 = row.try_get(0)?;
        Ok(count as usize)
    }

    /// Gives back what the owner has claimed and does not know of; returns how many messages that were.
    pub(crate) async fn give_back(&self, owner: &str, ids: &[MessageId], attempts: &[i32]) -> Result<usize> {
        let row = self.query_one("give back lost claims", GIVE_BACK, &[&owner, &ids, &attempts]).await?;
        let count: i32 = row.try_get(0)?;
        Ok(count as usize)
    }

    pub(crate) async fn consumers(&self) -> Result<Vec<ConsumerRow>> {
        let rows = self.query("list consumers", CONSUMERS, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(ConsumerRow {
                    incarnation: row.try_get(0)?,
                    host: row.try_get(1)?,
                    pid: row.try_get(2)?,
                    application: row.try_get(3)?,
                    version: row.try_get(4)?,
                    targets: row.try_get(5)?,
                    started_at: row.try_get(6)?,
                    beat_at: row.try_get(7)?,
                    alive: row.try_get(8)?,
                    beat_age_seconds: row.try_get(9)?,
                    processing: row.try_get(10)?,
                })
            })
            .collect()
    }
}

fn millis(duration: Duration) -> i64 {
    duration.as_millis() as i64
}
