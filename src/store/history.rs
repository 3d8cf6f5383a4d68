//! The story of a message, and the dead letters a filter names.

use std::time::SystemTime;

use super::{Store, json::JsonbString};
use crate::{error::Result, message::MessageId};

const HISTORY: &str = "select * from integration.history($1)";
const DEAD_LETTER_IDS: &str = "select * from integration.dead_letter_ids($1, $2, $3, $4, $5)";

/// One line of the audit log about one message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditEvent {
    /// When, by the server's clock.
    pub at: SystemTime,
    /// What: claimed, completed, retried, failed, rescued, redriven, …
    pub action: String,
    /// Who: the session's application_name, else its role.
    pub app_name: String,
    /// The database role that was logged in.
    pub role_name: String,
    /// The consumer that held or took the message.
    pub incarnation: Option<String>,
    /// The attempt it was about.
    pub attempt: Option<i32>,
    /// The status before.
    pub old_status: Option<String>,
    /// The status after.
    pub new_status: Option<String>,
    /// More, as JSON: the reason, the counters.
    pub details: Option<String>,
}

/// Which dead letters; what is `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct DeadLetters {
    /// Of this target.
    pub target: Option<String>,
    /// Of this record type.
    pub record_type: Option<String>,
    /// From this source.
    pub source: Option<String>,
    /// Whose reason matches this LIKE pattern.
    pub reason: Option<String>,
    /// At most so many, oldest failure first.
    pub limit: Option<u32>,
}

impl Store {
    pub(crate) async fn history(&self, id: MessageId) -> Result<Vec<AuditEvent>> {
        let rows = self.query("read the audit log", HISTORY, &[&id]).await?;
        rows.iter()
            .map(|row| {
                let details: Option<JsonbString> = row.try_get("details")?;
                Ok(AuditEvent {
                    at: row.try_get("at")?,
                    action: row.try_get("action")?,
                    app_name: row.try_get("app_name")?,
                    role_name: row.try_get("role_name")?,
                    incarnation: row.try_get("incarnation")?,
                    attempt: row.try_get("attempt")?,
                    old_status: row.try_get("old_status")?,
                    new_status: row.try_get("new_status")?,
                    details: details.map(|json| json.0.into()),
                })
            })
            .collect()
    }

    pub(crate) async fn dead_letter_ids(&self, filter: &DeadLetters) -> Result<Vec<MessageId>> {
        let limit = filter.limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX));
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&filter.target, &filter.record_type, &filter.source, &filter.reason, &limit];
        let rows = self.query("look for dead letters", DEAD_LETTER_IDS, &params).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}
