//! The tables: dead rows, and whether somebody removes them.

use super::{
    finding::Finding,
    session::{Session, age, size},
};
use crate::error::Result;

const SQL: &str = "select c.relname::text, s.n_live_tup, s.n_dead_tup, \
        extract(epoch from clock_timestamp() - greatest(s.last_autovacuum, s.last_vacuum))::float8, \
        pg_total_relation_size(c.oid), age(c.relfrozenxid), coalesce(array_to_string(c.reloptions, ', '), '') \
    from pg_class c join pg_stat_all_tables s on s.relid = c.oid \
    where c.relnamespace = 'integration'::regnamespace and c.relkind = 'r' and not c.relispartition order by 5 desc";
/// The ready index must stay as small as what is pending: its size, and how many are.
const READY: &str = "select pg_relation_size(c.oid), coalesce((select sum(s.pending) from integration.stats s), 0)::bigint \
    from pg_class c where c.oid = to_regclass('integration.data_staging_ready')";

const DEAD_MANY: i64 = 50_000;
const FREEZE_OLD: i32 = 1_000_000_000;
/// An index entry and its share of a half-filled page.
const READY_ENTRY_BYTES: i64 = 160;
const READY_FREE_BYTES: i64 = 16 << 20;

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let schema = session.schema().clone();
    let mut findings = Vec::new();
    let mut total = (0, 0, 0);
    for row in session.rows(SQL).await? {
        let (name, live, dead): (String, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (vacuumed, bytes, frozen, options): (Option<f64>, i64, i32, String) =
            (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
        total = (total.0 + live, total.1 + dead, total.2 + bytes);
        let vacuumed =
            vacuumed.map_or_else(|| "never vacuumed".to_owned(), |s| format!("last vacuumed {} ago", age(s)));
        let evidence = format!("{live} live and {dead} dead rows, {}, {vacuumed}", size(bytes));
        if dead >= DEAD_MANY && dead > live {
            findings.push(
                Finding::warning("tables", format!("{name} is mostly dead rows"))
                    .evidence(evidence.clone())
                    .fix(format!("vacuum {schema}.{name}; when the dead rows stay, see horizon")),
            );
        }
        if options.contains("autovacuum_enabled=false") || options.contains("autovacuum_enabled=off") {
            findings.push(
                Finding::problem("tables", format!("autovacuum is switched off for {name}"))
                    .evidence(evidence.clone())
                    .fix(format!("alter table {schema}.{name} reset (autovacuum_enabled)")),
            );
        }
        if frozen > FREEZE_OLD {
            findings.push(
                Finding::warning("tables", format!("{name} has not been frozen for {frozen} transactions"))
                    .evidence(format!("at two thousand million the server stops writing; {evidence}"))
                    .fix(format!("vacuum (freeze) {schema}.{name}; see horizon for what holds it back")),
            );
        }
    }
    let row = session.row(READY).await?;
    let (bytes, entries): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    if bytes > READY_FREE_BYTES + entries * READY_ENTRY_BYTES {
        findings.push(
            Finding::note("tables", format!("the index of pending messages is bloated: {}", size(bytes)))
                .evidence(format!("{entries} messages are pending"))
                .fix(format!("reindex index concurrently {schema}.data_staging_ready")),
        );
    }
    if findings.is_empty() {
        let (live, dead, bytes) = total;
        findings
            .push(Finding::ok("tables", format!("{live} live and {dead} dead rows (estimated) in {}", size(bytes))));
    }
    Ok(findings)
}
