//! Logical replication: publications that hold our tables.

use super::{
    finding::{Finding, Level},
    session::{Session, identifier},
};
use crate::error::Result;

/// Publications with tables of ours, how many, and those of them whose deletes PostgreSQL refuses for it.
const SQL: &str = "select t.pubname::text, count(*), \
        array_agg(t.tablename::text order by t.tablename) filter (where (p.pubdelete or p.pubupdate) and not ( \
            c.relreplident in ('f', 'i') or c.relreplident = 'd' and exists (select from pg_catalog.pg_index i \
            where i.indrelid = c.oid and i.indisprimary))) \
    from pg_catalog.pg_publication_tables t \
    join pg_catalog.pg_publication p on p.pubname = t.pubname \
    join pg_catalog.pg_class c on c.relname = t.tablename and c.relnamespace = 'integration'::regnamespace \
    where t.schemaname = 'integration'::regnamespace::name group by t.pubname order by t.pubname";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in session.rows(SQL).await? {
        let (name, tables, refused): (String, i64, Option<Vec<String>>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        findings.push(match refused {
            Some(refused) => Finding::problem(
                "publication",
                format!("publication {name} keeps rows of {} from being changed or deleted", refused.join(", ")),
            )
            .evidence("they have no replica identity, and the publication publishes updates or deletes")
            .fix(session.schema().sql(&refused.iter().map(|table| identity(table)).collect::<Vec<_>>().join("; "))),
            None => Finding::new(
                "publication",
                Level::Note,
                format!("publication {name} holds {tables} tables of Doorbell: every message goes to its subscribers"),
            )
            .evidence("streamed rows ring no bell and count in no counter of the other side")
            .fix(format!("a publication of the tables that are wanted, instead of {}", identifier(&name))),
        });
    }
    Ok(findings)
}

fn identity(table: &str) -> String {
    format!("alter table integration.{} replica identity full", identifier(table))
}
