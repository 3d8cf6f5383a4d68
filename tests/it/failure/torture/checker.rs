//! The checker: rules in SQL over the ledgers and what is in the database.

use tokio_postgres::Client;

/// Creates the tables that handlers write to and the rules.
pub(super) const SCHEMA: &str = include_str!("checker.sql");

/// The rule that only a machine keeps that has time for every heartbeat.
pub(super) const LIVING: &str = "S15 rescued from the living";

/// For long runs: without them each rule would compare everything with everything.
pub(super) const INDEXES: &str = "create index on integration.data_staging ((data->>'op')); \
    create index on integration.data_staging_archive ((data->>'op')); create index on integration.audit_log (staging_id, id); \
    create index on chk.effect (op); create index on chk.run (staging_id); create index on chk.run (op); \
    analyze integration.data_staging, integration.audit_log, chk.op, chk.effect, chk.run";

const VIOLATIONS: &str =
    "select rule, subject, coalesce(detail, '') from (table chk.violation union all table chk.routed) v order by 1, 2";

/// Which rules are broken: (rule, subject, detail).
pub(super) async fn violations(client: &Client) -> Vec<(String, String, String)> {
    // Compiling so many rules takes 14 s, running them less than one.
    client.batch_execute("set jit = off").await.unwrap();
    let rows = client.query(VIOLATIONS, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get::<_, Option<String>>(1).unwrap_or_default(), row.get(2))).collect()
}

/// The whole history of a message, given its id or its op.
pub(super) async fn story(client: &Client, subject: &str) -> String {
    const STORY: &str = "select string_agg(line, e'\\n  ' order by n, line) from (
        select 0::bigint as n, format('%s %s by %s', o.op, o.intent, o.outcome) as line from chk.op o join m on o.op = m.op
        union all select a.id, concat_ws(' ', a.created_at::time, a.action, 'attempt', a.attempt, a.owner, 'by', a.app_name, a.details) from integration.audit_log a join m on a.staging_id = m.id
        union all select 1e15::bigint, concat_ws(' ', 'run', r.attempt, r.consumer, r.found) from chk.run r join m on r.staging_id = m.id
        union all select 1e15::bigint, concat_ws(' ', 'effect', e.attempt, e.consumer) from chk.effect e join m on e.staging_id = m.id) s";
    let sql = format!(
        "with m as (select id, data->>'op' as op from chk.msg where id::text = $1 or data->>'op' = $1) {STORY}"
    );
    client.query_one(&sql, &[&subject]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
}
