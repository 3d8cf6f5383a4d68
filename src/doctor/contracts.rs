//! Contracts: messages that broke one and were stored.

use super::{finding::Finding, session::Session};
use crate::{error::Result, written::shell::quoted};

const SQL: &str = "select c.target_app, count(distinct c.record_type), \
        (select coalesce(sum(o.messages), 0)::bigint from integration.current_traffic o where o.target_app = c.target_app \
            and o.action = 'breaches' and o.minute > integration.clock() - interval '1 day') \
    from integration.contracts c group by c.target_app order by 1";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut bound = 0;
    for row in session.rows(SQL).await? {
        let (target, types, breaches): (String, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        bound += types;
        if breaches > 0 {
            findings.push(
                Finding::warning(
                    "contracts",
                    format!("{breaches} messages for {target} broke a contract in the last day"),
                )
                .evidence("the audit log has each as breached, with the rule and whether it was stored as failed")
                .fix(format!("doorbell audit --target {} --action breached --since 1d", quoted(&target))),
            );
        }
    }
    if findings.is_empty() && bound > 0 {
        findings.push(Finding::ok("contracts", format!("{bound} record types keep their contracts")));
    }
    Ok(findings)
}
