//! What [`Follower`](crate::operate::Follower) reads.

use tokio_postgres::Row;

use super::{Store, audit, window::Window};
use crate::{error::Result, rows::AuditEvent};

// Where to begin: far enough back that what runs now is among it, as a gap. The audit log has no index on its ids, only on
// its times.
const HEAD: &str = "select integration.oldest_xid() as oldest, integration.next_xid() as next, \
    extract(epoch from integration.clock())::float8 as at, \
    coalesce((select max(id) from integration.data_staging), 0) - 1000 as first_message, \
    coalesce((select min(id) from integration.audit_log \
        where created_at >= integration.clock() - interval '10 s'), 0) as first_event";

const PUBLISHED: &str = "select * from ( \
        (select d.id, d.created_at as at, d.source_app, d.target_app, d.record_type \
           from integration.data_staging d where d.id > $1 order by d.id limit $4) \
        union all \
        (select d.id, d.created_at, d.source_app, d.target_app, d.record_type \
           from unnest($2::bigint[], $3::bigint[]) g (first, last) \
          cross join lateral (select * from integration.data_staging x where x.id between g.first and g.last \
              order by x.id limit $4) d limit $4)) p order by id limit $4";

const CHANGED: &str = "select a.id, a.created_at as at, a.staging_id, a.action, a.source_app, a.target_app, a.record_type, \
        a.attempt, a.old_status, a.new_status, a.app_name, a.role_name, a.owner, a.details \
      from integration.audit_log a \
     where a.created_at >= to_timestamp($5) \
       and (a.id > $1 or exists (select from unnest($2::bigint[], $3::bigint[]) g (first, last) where a.id between g.first and g.last)) \
     order by a.id limit $4";

/// The clock is read a moment before the row is written, and ids are drawn a moment after.
const SLACK_SECONDS: f64 = 2.0;

/// A row of one of the two tables, and what it tells.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) id: i64,
    /// `None`: the other table tells the same.
    pub(crate) event: Option<AuditEvent>,
}

/// Where the tables end, and who still runs.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) oldest_xid: i64,
    pub(crate) next_xid: i64,
    /// The server's clock, in seconds.
    pub(crate) at: f64,
    pub(crate) first_message: i64,
    pub(crate) first_event: i64,
}

impl Store {
    /// At most so many rows of each table a look.
    pub(crate) const FOLLOW_LIMIT: usize = 10_000;
    /// How far back the first look begins, as HEAD has it.
    pub(crate) const FOLLOW_BACK_SECONDS: f64 = 10.0;

    pub(crate) async fn head(&self) -> Result<Head> {
        let row = self.query_one("look where the log ends", HEAD, &[]).await?;
        Ok(Head {
            oldest_xid: row.try_get("oldest")?,
            next_xid: row.try_get("next")?,
            at: row.try_get("at")?,
            first_message: row.try_get("first_message")?,
            first_event: row.try_get("first_event")?,
        })
    }

    pub(crate) async fn published_since(&self, window: &Window) -> Result<Vec<Seen>> {
        let (first, last) = gaps(window);
        let limit = Self::FOLLOW_LIMIT as i64;
        let rows = self.query("look for new messages", PUBLISHED, &[&window.end, &first, &last, &limit]).await?;
        rows.iter()
            .map(|row| {
                let id = row.try_get("id")?;
                let event = AuditEvent {
                    at: row.try_get("at")?,
                    action: "published".to_owned(),
                    id: Some(id),
                    source: row.try_get("source_app")?,
                    target: row.try_get("target_app")?,
                    record_type: row.try_get("record_type")?,
                    attempt: None,
                    old_status: None,
                    new_status: None,
                    by: None,
                    role: None,
                    owner: None,
                    details: None,
                };
                Ok(Seen { id, event: Some(event) })
            })
            .collect()
    }

    pub(crate) async fn changed_since(&self, window: &Window) -> Result<Vec<Seen>> {
        let (first, last) = gaps(window);
        let limit = Self::FOLLOW_LIMIT as i64;
        let since = window.gaps.iter().map(|gap| gap.since).fold(window.looked_at, f64::min) - SLACK_SECONDS;
        let rows = self.query("read the audit log", CHANGED, &[&window.end, &first, &last, &limit, &since]).await?;
        rows.iter().map(changed).collect()
    }
}

fn changed(row: &Row) -> Result<Seen> {
    let event = audit::event(row)?;
    Ok(Seen { id: row.try_get("id")?, event: (event.action != "published").then_some(event) })
}

fn gaps(window: &Window) -> (Vec<i64>, Vec<i64>) {
    window.gaps.iter().map(|gap| (gap.first, gap.last)).unzip()
}
