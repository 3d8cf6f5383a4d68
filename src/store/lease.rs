//! Leases of the process: registrant, heartbeat, rescue.

use std::time::Duration;

use super::{
    Store,
    fence::{Claim, Fence},
};
use crate::{error::Result, rows::ProcessRow};

const REGISTER: &str = "select integration.register($1, $2, $3, $4, $5, $6::text::jsonb, $7)";
const BEAT: &str = "select renewed, timeline, session from integration.beat($1, $2)";
const RESCUE: &str = "select integration.rescue($1, $2)";
const DEREGISTER: &str = "select integration.deregister($1)";
const GIVE_BACK: &str = "select integration.give_back($1, $2, $3, $4)";
const STILL_MINE: &str = "select id, attempt, created_at from integration.still_mine($1, $2, $3, $4)";
const TAKEN_FROM: &str = "select id, attempt, created_at, there from integration.taken_from($1, $2, $3, $4)";
const PROCESSES: &str = "select c.owner, c.host, c.pid, c.application, c.version, c.targets::text as targets, \
        c.started_at, c.beat_at, c.lease_until > integration.clock() as alive, \
        extract(epoch from integration.clock() - c.beat_at)::float8 as beat_age, coalesce(h.processing, 0) as processing \
    from integration.processes c \
    left join (select d.owner, count(*) as processing from integration.data_staging d \
         where d.status = 'processing' group by d.owner) h on h.owner = c.owner \
    order by c.started_at, c.owner";

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

/// What a heartbeat learns.
#[derive(Debug)]
pub(crate) struct Beat {
    /// False: the owner was rescued from in the meantime.
    pub(crate) renewed: bool,
    pub(crate) met: Met,
}

/// Whom the heartbeat has met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Met {
    /// The history of the server; another one after a failover. `None`: it does not tell.
    pub(crate) timeline: Option<String>,
    /// Another one after each reconnect.
    pub(crate) session: String,
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

    /// Renews the lease.
    pub(crate) async fn beat(&self, owner: &str, lease: Duration) -> Result<Beat> {
        let row = self.query_one("heartbeat", BEAT, &[&owner, &millis(lease)]).await?;
        let met = Met { timeline: row.try_get("timeline")?, session: row.try_get("session")? };
        Ok(Beat { renewed: row.try_get("renewed")?, met })
    }

    /// Those of the claims that are or may be still the owner's.
    pub(crate) async fn still_mine(&self, owner: &str, claims: &[Claim]) -> Result<Vec<Claim>> {
        let Fence { ids, attempts, created } = Fence::of(claims);
        let rows = self.query("ask what is in hand", STILL_MINE, &[&owner, &ids, &attempts, &created]).await?;
        rows.iter().map(Claim::from_row).collect()
    }

    /// Those of the claims that somebody took from the owner, and whether their message is still there.
    pub(crate) async fn taken_from(&self, owner: &str, claims: &[Claim]) -> Result<Vec<(Claim, bool)>> {
        let Fence { ids, attempts, created } = Fence::of(claims);
        let rows = self.query("ask what was taken", TAKEN_FROM, &[&owner, &ids, &attempts, &created]).await?;
        rows.iter().map(|row| Ok((Claim::from_row(row)?, row.try_get("there")?))).collect()
    }

    /// Returns the messages of dead consumers; `full` also looks for single leases that ran out. Returns how many.
    pub(crate) async fn rescue(&self, full: bool) -> Result<usize> {
        let mut rescued = 0;
        loop {
            let row = self.query_one("rescue", RESCUE, &[&RESCUE_LIMIT, &full]).await?;
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
    pub(crate) async fn give_back(&self, owner: &str, known: &[Claim]) -> Result<usize> {
        let Fence { ids, attempts, created } = Fence::of(known);
        let row = self.query_one("give back lost claims", GIVE_BACK, &[&owner, &ids, &attempts, &created]).await?;
        let count: i32 = row.try_get(0)?;
        Ok(count as usize)
    }

    pub(crate) async fn processes(&self) -> Result<Vec<ProcessRow>> {
        let rows = self.query("list processes", PROCESSES, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(ProcessRow {
                    owner: row.try_get("owner")?,
                    host: row.try_get("host")?,
                    pid: row.try_get("pid")?,
                    application: row.try_get("application")?,
                    version: row.try_get("version")?,
                    targets: row.try_get("targets")?,
                    started_at: row.try_get("started_at")?,
                    beat_at: row.try_get("beat_at")?,
                    alive: row.try_get("alive")?,
                    beat_age_seconds: row.try_get("beat_age")?,
                    processing: row.try_get("processing")?,
                })
            })
            .collect()
    }
}

fn millis(duration: Duration) -> i64 {
    duration.as_millis() as i64
}
