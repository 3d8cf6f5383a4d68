//! Messages that the database refuses to change, which everything else goes on without.

use super::{
    finding::Finding,
    session::{Session, age},
};
use crate::error::Result;

/// Not the reason: what a trigger says may quote the message.
const SQL: &str = "select s.target_app, s.verb, s.sqlstate, count(*), min(s.id), \
        extract(epoch from integration.clock() - min(s.since))::float8 \
    from integration.set_aside_now s group by s.target_app, s.verb, s.sqlstate order by count(*) desc, 1, 2, 3 limit 20";

/// Rows are locked now and then.
const LOCKED: &str = "55P03";
const LOCKED_FOR_LONG: f64 = 60.0;

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in session.rows(SQL).await? {
        let (target, verb, sqlstate): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (count, id, seconds): (i64, i64, f64) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
        if sqlstate == LOCKED && seconds < LOCKED_FOR_LONG {
            continue;
        }
        let what = match sqlstate.as_str() {
            LOCKED => format!("{count} messages of {target} cannot be settled ({verb}): somebody has locked them"),
            _ => format!("the database refuses to {verb} {count} messages of {target}; they are set aside"),
        };
        findings.push(
            Finding::warning("set_aside", what)
                .evidence(format!("SQLSTATE {sqlstate}, for {}, message {id} among them", age(seconds)))
                .fix(format!("doorbell explain {id}")),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok("set_aside", "the database lets every message be changed"));
    }
    Ok(findings)
}
