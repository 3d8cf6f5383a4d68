//! The upkeep: whether somebody maintains, and whether bells are what finds messages.

use super::{
    finding::Finding,
    session::{Session, age},
};
use crate::error::Result;

const MAINTENANCE: &str = "select m.leader, coalesce(m.leads_until > integration.clock(), false), \
        extract(epoch from integration.clock() - m.cleaned_at)::float8, \
        (select count(*) from (select from integration.deltas limit 20000) x), \
        exists (select from integration.current_counters c where c.messages > 0) \
    from integration.maintenance m";

/// Folded every two seconds, and as fast as they come.
const DELTAS_MANY: i64 = 20_000;
/// A round of cleaning begins every minute; over millions of old messages it takes long.
const CLEANED_LONG_AGO: f64 = 6.0 * 3600.0;

pub(super) async fn maintenance(session: &mut Session) -> Result<Vec<Finding>> {
    let row = session.row(MAINTENANCE).await?;
    let (leader, leads, cleaned): (Option<String>, bool, Option<f64>) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (deltas, messages): (i64, bool) = (row.try_get(3)?, row.try_get(4)?);
    let last = cleaned.map_or_else(|| "it was never done".to_owned(), |s| format!("last done {} ago", age(s)));
    if !leads && !messages {
        return Ok(vec![Finding::ok("maintenance", "there is nothing to maintain yet")]);
    }
    if !leads {
        return Ok(vec![
            Finding::warning("maintenance", "nobody does the maintenance: the tables grow, and nobody rescues")
                .evidence(last)
                .fix("start a consumer, each does it; or doorbell maintain, or from cron doorbell maintain --once"),
        ]);
    }
    let leader = leader.unwrap_or_default();
    if deltas >= DELTAS_MANY || cleaned.is_some_and(|cleaned| cleaned > CLEANED_LONG_AGO) {
        return Ok(vec![
            Finding::warning("maintenance", format!("{leader} does the maintenance and does not get on"))
                .evidence(format!("{last}; at least {deltas} counter entries wait to be folded"))
                .fix("see its log; the server may be too busy, or somebody holds locks for long: see horizon"),
        ]);
    }
    Ok(vec![Finding::ok("maintenance", format!("{leader} does it, {last}"))])
}

/// Fewer messages an hour say nothing.
const FOUND_MANY: i64 = 100;
const SWEEPS_MANY: f64 = 0.2;

const WAKEUPS: &str = "select w.target_app, (w.bell + w.drain + w.sweep)::bigint, w.sweep_share::float8 \
    from integration.wakeups w left join integration.targets t on t.target_app = w.target_app \
    where coalesce(t.bell, 'on_demand') <> 'off' and w.sweep_share is not null order by w.target_app";

/// What consumers told in the last hour.
pub(super) async fn wakeups(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let (mut all, mut swept) = (0.0, 0.0);
    for row in session.rows(WAKEUPS).await? {
        let (target, found, share): (String, i64, f64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        (all, swept) = (all + found as f64, swept + found as f64 * share);
        if found >= FOUND_MANY && share >= SWEEPS_MANY {
            let percent = share * 100.0;
            findings.push(
                Finding::warning(
                    "wakeups",
                    format!("{percent:.0} % of the messages for {target} were found by sweeps: bells get lost"),
                )
                .evidence(format!("{found} messages in the last hour"))
                .fix(session.schema().sql(
                    "see bell, asked with its consumers' connection string; and whether its publishers have \
                     integration.notify = off",
                )),
            );
        }
    }
    if findings.is_empty() {
        let share = if all > 0.0 { swept / all * 100.0 } else { 0.0 };
        findings
            .push(Finding::ok("wakeups", format!("sweeps found {share:.0} % of {all:.0} messages in the last hour")));
    }
    Ok(findings)
}
