//! Names of targets that may be another's, misspelt: their messages wait for a consumer that nobody will ever start.

use super::{
    finding::Finding,
    session::{Session, age},
};
use crate::{alike, error::Result, written::shell::quoted};

/// `meant`: somebody consumes it, has handled a message for it, or has set something for it.
const SQL: &str = "select s.target_app, s.pending + s.scheduled, coalesce(extract(epoch from s.oldest_age), 0)::float8, \
        s.processes > 0, s.processes > 0 or h.target_app is not null \
        or exists (select from integration.targets t where t.target_app = s.target_app) \
    from integration.stats s \
    left join (select distinct t.target_app from integration.current_totals t where t.action = 'completed') h \
      on h.target_app = s.target_app";

/// The first so many are named.
const NAMED: usize = 20;

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let (mut meant, mut strange) = (Vec::new(), Vec::new());
    for row in session.rows(SQL).await? {
        let (name, waiting, oldest): (String, i64, f64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let consumed: bool = row.try_get(3)?;
        match row.try_get(4)? {
            true => meant.push((name, consumed)),
            false if waiting > 0 => strange.push((name, waiting, oldest)),
            false => {}
        }
    }
    let names = || meant.iter().map(|(name, _)| name.as_str());
    let found = strange.iter().filter_map(|strange| Some((strange, alike::nearest(&strange.0, names())?)));
    let findings = found.take(NAMED).map(|((name, waiting, oldest), other)| {
        let consumed = meant.iter().any(|(known, consumed)| known == other && *consumed);
        let how = if consumed { "is consumed" } else { "was, or has settings" };
        let (from, to) = (quoted(name), quoted(other));
        Finding::warning("targets", format!("the target {name} may be {other}, misspelt"))
            .evidence(format!(
                "{waiting} messages wait for {name}, the oldest for {}; nobody has ever handled one, and {other} {how}",
                age(*oldest)
            ))
            .fix(format!("if it is: doorbell move --to {to} --target {from} --dry-run"))
    });
    Ok(findings.collect())
}
