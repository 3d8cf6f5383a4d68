//! Sources: captures that publish nothing, and extracts that do not get on.

use super::{finding::Finding, session::Session};
use crate::{error::Result, written::shell::quoted};

const CAPTURES: &str = "select x.\"table\", x.target_app, x.is_on, exists (select from pg_class c where c.oid = x.table_id), \
        integration.keys_of_table(x.table_id) = x.keys \
    from integration.captured x order by 1";

const EXTRACTS: &str = "select e.name, e.last_error, e.began_at < integration.clock() - interval '1 min', e.skipped, \
        coalesce(e.table_id::text, 'the tables of its query'), coalesce(e.watermark, ''), e.target_app, e.is_foreign, \
        e.is_foreign and e.every is not null and coalesce(e.looked_at, e.created_at) \
            < integration.clock() - greatest(e.every * 10, interval '5 min') \
    from integration.extracts e where e.paused_at is null order by 1";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut sources = 0;
    for row in session.rows(CAPTURES).await? {
        sources += 1;
        let (table, target): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (is_on, is_there, same_key): (bool, bool, bool) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        if !is_there {
            findings.push(
                Finding::note("sources", format!("a table that was captured for {target} was dropped"))
                    .evidence(format!("its number was {table}"))
                    .fix(session.schema().sql(&format!("select integration.uncapture('{table}')")).into_owned()),
            );
        } else if !is_on {
            let evidence = match same_key {
                true => "one of its triggers doorbell_insert, _update, _delete, _truncate is gone or disabled",
                false => "its primary key is another than it was",
            };
            let fix = format!(
                "select integration.capture(table_id, target_app, source_app, record_type, columns, condition) \
                    from integration.captures where table_id = '{}'::regclass",
                table.replace('\'', "''")
            );
            findings.push(
                Finding::problem("sources", format!("changes of {table} are not published, and {target} misses them"))
                    .evidence(evidence)
                    .fix(session.schema().sql(&fix).into_owned()),
            );
        }
    }
    for row in session.rows(EXTRACTS).await? {
        sources += 1;
        let (name, error, is_late): (String, Option<String>, Option<bool>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (skipped, of, watermark): (i64, String, String) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
        let (target, is_foreign, is_unread): (String, bool, bool) = (row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
        if let Some(error) = error {
            let again = if is_foreign { "whoever reads it tries again" } else { "it is tried every minute" };
            findings.push(
                Finding::problem("sources", format!("the extract {name} fails"))
                    .evidence(error)
                    .fix(format!("mend what it says; {again}. Until then: doorbell extract pause {}", quoted(&name))),
            );
        } else if is_unread {
            findings.push(
                Finding::problem("sources", format!("nobody reads the extract {name}, which is of another database"))
                    .evidence(format!("{target} gets nothing new of it"))
                    .fix(format!(
                        "start what reads it (doorbell extract add, with its --source-url), or end it: doorbell extract remove {}",
                        quoted(&name)
                    )),
            );
        } else if is_late == Some(true) {
            findings.push(
                Finding::warning("sources", format!("looks of the extract {name} do not come to their end"))
                    .evidence(format!("{of} may have no index that begins with {watermark}"))
                    .fix(format!("make one; meanwhile: doorbell extract pause {}", quoted(&name))),
            );
        } else if skipped > 0 {
            findings.push(
                Finding::note("sources", format!("{skipped} rows of the extract {name} could not be published"))
                    .evidence("the audit log has them as extract_skipped, with the reason")
                    .fix(format!("doorbell audit --target {} --action extract_skipped", quoted(&target))),
            );
        }
    }
    if findings.is_empty() && sources > 0 {
        findings.push(Finding::ok("sources", format!("{sources} sources publish")));
    }
    Ok(findings)
}
