//! The story of a message.

use std::time::SystemTime;

use super::{Store, json::JsonbString};
use crate::{error::Result, message::MessageId};

const HISTORY: &str = "select * from integration.history($1)";

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
}
