//! The audit log, line by line.

use tokio_postgres::{Row, types::ToSql};

use super::{
    Store,
    json::JsonbString,
    moment::{clock, moment},
};
use crate::{
    error::Result,
    filter::{AuditFilter, Moment},
    message::MessageId,
    rows::{AuditEvent, AuditPage},
};

const AUDIT: &str = "select a.created_at as at, a.action, a.staging_id, a.source_app, a.target_app, a.record_type, \
        a.attempt, a.old_status, a.new_status, a.app_name, a.role_name, a.owner, a.details \
      from integration.audit_log a where a.staging_id = $1 order by a.created_at, a.id";

const AUDIT_LIST: &str = concat!(
    "select a.* from ",
    clock!(),
    " cross join lateral integration.audit_list($1, $2, $3, $4, $5, $6, ",
    moment!("$7", "$8", "$9"),
    ", ",
    moment!("$10", "$11", "$12"),
    ", $13, $14) a"
);

impl Store {
    pub(crate) async fn audit_list(&self, filter: &AuditFilter, limit: u32, after: Option<&str>) -> Result<AuditPage> {
        let AuditFilter { id, target, action, by, role, owner, since, until } = filter;
        let most = i32::try_from(limit).unwrap_or(i32::MAX);
        let (since, since_ago, since_day) = Moment::parts(*since);
        let (until, until_ago, until_day) = Moment::parts(*until);
        let params: [&(dyn ToSql + Sync); 14] = [
            id, target, action, by, role, owner, &since, &since_ago, &since_day, &until, &until_ago, &until_day, &most,
            &after,
        ];
        let rows = self.query("list the audit log", AUDIT_LIST, &params).await?;
        let mut page = AuditPage { events: Vec::new(), next: None, looked_until: None };
        for row in &rows {
            let cursor = Some(row.try_get("cursor")?);
            if row.try_get::<_, Option<&str>>("action")?.is_none() {
                (page.next, page.looked_until) = (cursor, Some(row.try_get("at")?));
                return Ok(page);
            }
            page.events.push(event(row)?);
            page.next = cursor.filter(|_| page.events.len() >= limit as usize);
        }
        Ok(page)
    }

    pub(crate) async fn audit(&self, id: MessageId) -> Result<Vec<AuditEvent>> {
        let rows = self.query("read the audit log", AUDIT, &[&id]).await?;
        rows.iter().map(event).collect()
    }
}

pub(super) fn event(row: &Row) -> Result<AuditEvent> {
    let details: Option<JsonbString> = row.try_get("details")?;
    Ok(AuditEvent {
        at: row.try_get("at")?,
        action: row.try_get("action")?,
        id: row.try_get("staging_id")?,
        source: row.try_get("source_app")?,
        target: row.try_get("target_app")?,
        record_type: row.try_get("record_type")?,
        attempt: row.try_get("attempt")?,
        old_status: row.try_get("old_status")?,
        new_status: row.try_get("new_status")?,
        by: row.try_get("app_name")?,
        role: row.try_get("role_name")?,
        owner: row.try_get("owner")?,
        details: details.map(|json| json.0.into()),
    })
}
