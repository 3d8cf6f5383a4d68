//! Ordering keys that are blocked: whoever publishes with one asked for order, and waits for somebody to say how to go on.

use super::{finding::Finding, session::Session};
use crate::{error::Result, written::shell::quoted};

const SQL: &str = "select b.target_app, count(*), min(b.ordering_key), min(b.staging_id), \
        (array_agg(b.reason order by b.staging_id))[1], max(b.waiting) \
    from (select * from integration.blocked_keys limit 10000) b \
    where b.waiting > 0 group by b.target_app order by b.target_app";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in session.rows(SQL).await? {
        let (target, keys, key): (String, i64, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (id, reason, waiting): (i64, Option<String>, i64) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
        let reason = reason.unwrap_or_else(|| "no reason was given".to_owned());
        findings.push(
            Finding::warning("keys", format!("{keys} ordering keys of {target} are blocked"))
                .evidence(format!(
                    "message {id} (one of key {key}, perhaps) failed for good: {reason}; up to {waiting} messages wait behind one"
                ))
                .fix(format!("doorbell keys {} --blocked", quoted(&target))),
        );
    }
    Ok(findings)
}
