//! Rate limits that were meant otherwise: what waits would take days.

use super::{finding::Finding, session::Session};
use crate::{error::Result, written::shell::quoted};

const SQL: &str = "select t.target_app, s.pending, t.rate_max, \
        integration.in_words(t.rate_per), integration.in_words(s.pending / t.rate_max * t.rate_per) \
    from integration.targets t cross join lateral ( \
        select coalesce(sum(c.messages), 0)::bigint as pending from integration.current_counters c \
         where c.target_app = t.target_app and c.status = 'pending') s \
    where t.rate_max is not null and s.pending / t.rate_max * t.rate_per > interval '1 day' order by 1";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in session.rows(SQL).await? {
        let (target, pending, max): (String, i64, i32) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (per, long): (String, String) = (row.try_get(3)?, row.try_get(4)?);
        findings.push(
            Finding::warning("limits", format!("what waits for {target} takes {long} at its rate"))
                .evidence(format!("{pending} messages wait, and at most {max} are claimed within {per}"))
                .fix(format!("doorbell target set {} rate_max={}", quoted(&target), i64::from(max).saturating_mul(10))),
        );
    }
    Ok(findings)
}
