//! The audit log, line by line.

use tokio_postgres::Row;

use super::{Store, json::JsonbString};
use crate::{error::Result, message::MessageId, rows::AuditEvent};

const AUDIT: &str = "select a.created_at as at, a.action, a.staging_id, a.source_app, a.target_app, a.record_type, \
        a.attempt, a.old_status, a.new_status, a.app_name, a.role_name, a.owner, a.details \
      from integration.audit_log a where a.staging_id = $1 order by a.created_at, a.id";

impl Store {
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
