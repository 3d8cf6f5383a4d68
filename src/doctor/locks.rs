//! Who holds locks of ours that are not his to hold.

use super::{finding::Finding, session::Session};
use crate::error::Result;

/// Our advisory locks in hands that may not consume: anybody can take them. And locks on the table of messages that keep
/// everybody out.
const HELD: &str = "select l.pid, coalesce(a.usename::text, '?'), coalesce(a.application_name, ''), count(*), \
        bool_or(l.locktype = 'relation') \
    from pg_locks l left join pg_stat_activity a on a.pid = l.pid \
    where l.granted and l.database = (select d.oid from pg_database d where d.datname = current_database()) \
      and l.pid <> pg_backend_pid() \
      and (l.locktype = 'advisory' and l.objsubid = 2 \
              and l.classid::bigint between integration.lock_class() and integration.lock_class() + 3 \
              and not coalesce(has_function_privilege(a.usesysid, 'integration.has_suspects(text,text[])', 'execute'), false) \
           or l.locktype = 'relation' and l.relation = 'integration.data_staging'::regclass \
              and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')) \
    group by 1, 2, 3 order by 1 limit 20";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in session.rows(HELD).await? {
        let (pid, role, application): (i32, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (count, table): (i64, bool) = (row.try_get(3)?, row.try_get(4)?);
        let evidence = format!("pid {pid}, application {application:?}, {count} locks");
        let finding = if table {
            Finding::problem("locks", format!("role {role} keeps publishers or consumers out of the table of messages"))
        } else {
            Finding::warning("locks", format!("role {role} holds advisory locks of ours and may not consume"))
        };
        let fix =
            format!("find out what it is for; what it did not commit is undone by select pg_terminate_backend({pid})");
        findings.push(finding.evidence(evidence).fix(fix));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("locks", "nobody holds locks of ours that are not his to hold"));
    }
    Ok(findings)
}
