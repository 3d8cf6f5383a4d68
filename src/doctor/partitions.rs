//! The monthly partitions of the archive and the audit log.

use super::{finding::Finding, session::Session};
use crate::error::Result;

/// Whether the partition of this month and of the next are there, and how many rows lie in the default one (up to 1,000).
const SQL: &str = "select p.parent, p.months[1] is not null, p.months[2] is not null, \
        case p.parent when 'audit_log' then (select count(*) from (select from integration.audit_log_default limit 1000) x) \
                      else (select count(*) from (select from integration.data_staging_archive_default limit 1000) x) end \
    from (select t.parent, array_agg(to_regclass('integration.' || t.parent || to_char( \
                     (date_trunc('month', integration.clock(), 'UTC') + make_interval(months => m)) at time zone 'UTC', '\"_\"YYYYMM')) \
                     order by m) as months \
            from (values ('audit_log'), ('data_staging_archive')) t (parent), generate_series(0, 1) m group by t.parent) p \
    order by 1";

const ENSURE: &str = "select integration.ensure_partitions()";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in session.rows(SQL).await? {
        let (parent, now, next, strays): (String, bool, bool, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        if strays > 0 {
            let many = if strays == 1000 { "at least " } else { "" };
            findings.push(
                Finding::warning("partitions", format!("{many}{strays} rows of {parent} lie in its default partition"))
                    .evidence("their month cannot be made while they lie there, nor can they be dropped with it")
                    .fix(session.schema().sql(&rescue(&parent))),
            );
        }
        if !now {
            findings.push(
                Finding::problem("partitions", format!("{parent} has no partition for this month"))
                    .evidence("what is written goes to the default partition")
                    .fix(session.schema().sql(if strays > 0 { "as above" } else { ENSURE })),
            );
        } else if !next {
            findings.push(
                Finding::warning("partitions", format!("{parent} has no partition for the next month"))
                    .fix(session.schema().sql(&format!("{ENSURE}; and run it monthly"))),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "partitions",
            "the partitions of this month and the next are there, none is in the wrong place",
        ));
    }
    Ok(findings)
}

/// Moves what lies in the default partition to where it belongs.
fn rescue(parent: &str) -> String {
    format!(
        "begin; alter table integration.{parent} detach partition integration.{parent}_default; \
         alter table integration.{parent}_default rename to {parent}_strays; \
         create table integration.{parent}_default partition of integration.{parent} default; \
         alter table integration.{parent}_default replica identity full; \
         {ENSURE}; insert into integration.{parent} select * from integration.{parent}_strays; \
         drop table integration.{parent}_strays; commit"
    )
}
