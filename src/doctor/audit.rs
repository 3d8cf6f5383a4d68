//! The audit log: what happened to messages and is not in it, because the database refused to write it.

use super::{finding::Finding, session::Session};
use crate::error::Result;

const SQL: &str = "select t.target_app, sum(t.messages)::bigint from integration.recent_traffic(interval '1 h') t \
    where t.action = 'unaudited' group by t.target_app order by 2 desc, 1 limit 20";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in session.rows(SQL).await? {
        let (target, count): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let what = format!("{count} changes of messages of {target} in the last hour are not in the audit log");
        findings.push(
            Finding::problem("audit", what)
                .evidence("the database refused to write them; the server's log has the reason of each")
                .fix("look at what is yours on audit_log: a check, a trigger, a column that needs a value"),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok("audit", "the database writes all history that the audit level asks for"));
    }
    Ok(findings)
}
