//! Schedules: which cannot fire, and which nobody will hear.

use super::{finding::Finding, session::Session};
use crate::{error::Result, written::shell::quoted};

/// A tick is fired within two seconds where anybody looks; what could not be said of one that is not, in `why`.
const SQL: &str = "select s.name, s.target_app, s.paused_at is not null, \
        round(extract(epoch from integration.clock() - s.paused_at) / 86400)::bigint, s.next_at = 'infinity', \
        s.paused_at is null and s.next_at < integration.clock() - interval '1 min', \
        case when s.cron is not null and not exists (select from pg_timezone_names z where z.name = s.time_zone) \
                and not exists (select from pg_timezone_abbrevs a where a.abbrev = upper(s.time_zone)) \
             then 'the server does not know the time zone ' || s.time_zone \
             when t.kind = 'topic' and t.unrouted = 'reject' and not exists ( \
                select from integration.routes(s.target_app, s.record_type, s.source_app)) \
             then s.target_app || ' is a topic that rejects what nobody is subscribed to' end, \
        t.target_app is null and not integration.is_known(s.target_app) \
    from integration.schedules s left join integration.targets t on t.target_app = s.target_app order by 1";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut schedules = 0;
    for row in session.rows(SQL).await? {
        let (name, target): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (paused, days): (bool, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
        let (never, late): (bool, bool) = (row.try_get(4)?, row.try_get(5)?);
        let (why, strange): (Option<String>, bool) = (row.try_get(6)?, row.try_get(7)?);
        schedules += 1;
        let shown = quoted(&name);
        if never {
            let what = format!("the schedule {name} has fired for the last time: its expression names no time to come");
            findings.push(Finding::warning("schedules", what).fix(format!("doorbell schedule remove {shown}")));
        } else if paused && days.is_some_and(|days| days > 0) {
            let what = format!("the schedule {name} is paused, for {} days now", days.unwrap_or_default());
            findings.push(
                Finding::note("schedules", what)
                    .fix(format!("doorbell schedule resume {shown}, or doorbell schedule remove {shown}")),
            );
        } else if late || why.is_some() {
            let what = if late { "should have fired, and has not" } else { "cannot fire" };
            let evidence = why.unwrap_or_else(|| {
                "either no process looks, or publishing its message fails: the log of the server says why".to_owned()
            });
            findings.push(
                Finding::problem("schedules", format!("the schedule {name} {what}"))
                    .evidence(evidence)
                    .fix(format!("doorbell maintain --once; to see the error: doorbell schedule fire {shown}")),
            );
        } else if strange {
            let what = format!("the schedule {name} is for {target}, which nothing else knows");
            findings.push(
                Finding::warning("schedules", what)
                    .evidence("no message, no setting and no process has that name; it may be misspelt")
                    .fix(format!(
                        "start what handles its messages; or make it anew, after doorbell schedule remove {shown}"
                    )),
            );
        }
    }
    if findings.is_empty() && schedules > 0 {
        findings.push(Finding::ok("schedules", format!("each of {schedules} schedules can fire")));
    }
    Ok(findings)
}
