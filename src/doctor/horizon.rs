//! The horizon: who keeps dead rows from being removed; and the notification queue, which stands still for the same reasons.

use super::{
    Options,
    finding::{Finding, Level},
    session::{Session, age, identifier},
};
use crate::error::Result;

/// Sessions that hold a snapshot or a transaction id here; `ours`: holds a latch or session lock of Doorbell's, whose key
/// `integration.lock_class()` says, where there is one.
const SESSIONS: &str = "select a.pid, coalesce(a.usename::text, '?'), a.application_name, coalesce(a.state, a.backend_type), \
        extract(epoch from clock_timestamp() - coalesce(a.xact_start, a.query_start, a.backend_start))::float8, \
        greatest(age(a.backend_xid), age(a.backend_xmin)), coalesce(a.wait_event, ''), \
        exists (select from pg_locks l where l.pid = a.pid and l.locktype = 'advisory' and l.classid::bigint \
                in (door.lock_class, door.lock_class + 2)), \
        coalesce(host(a.client_addr), 'local') \
    from pg_stat_activity a, (select int4and(hashtext('integration'), 2147483640)::bigint) door (lock_class) \
    where (a.backend_xid is not null or a.backend_xmin is not null) and a.pid <> pg_backend_pid() \
      and a.datname = current_database() and a.backend_type <> 'walsender' and a.query !~* '^(autovacuum: )?vacuum' \
    order by 5 desc nulls last limit 3";
const PREPARED: &str = "select p.gid::text, p.owner::text, extract(epoch from clock_timestamp() - p.prepared)::float8, age(p.transaction) \
    from pg_prepared_xacts p where p.database = current_database() order by 3 desc limit 3";
const SLOTS: &str = "select s.slot_name::text, s.active, age(s.xmin), coalesce(s.wal_status, '') \
    from pg_replication_slots s where s.xmin is not null or not s.active and s.restart_lsn is not null \
    order by 3 desc nulls last limit 3";
const FEEDBACK: &str = "select coalesce(nullif(r.application_name, ''), 'a standby'), age(r.backend_xmin) from pg_stat_replication r \
    where r.backend_xmin is not null order by 2 desc limit 1";
const MAY_SEE: &str = "select pg_has_role(current_user, 'pg_read_all_stats', 'usage')";

const PROBLEM_FACTOR: f64 = 12.0;

pub(super) async fn check(session: &mut Session, options: &Options) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let old = options.transaction_old.as_secs_f64();
    let many = |xids: i32| u32::try_from(xids).is_ok_and(|xids| xids >= options.transactions_many);
    let level = |seconds: f64| if seconds >= old * PROBLEM_FACTOR { Level::Problem } else { Level::Warning };
    let mut oldest = 0.0f64;
    for row in session.rows(SESSIONS).await? {
        let (pid, user, application, state): (i32, String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let (seconds, xids, waits, ours): (f64, Option<i32>, String, bool) =
            (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?, row.try_get(7)?);
        let host: String = row.try_get(8)?;
        oldest = oldest.max(seconds);
        if seconds < old {
            continue;
        }
        let whose = if ours { "a session of Doorbell's" } else { "a session" };
        let what =
            format!("{whose} has kept a transaction open for {}: dead rows stay, claims become slower", age(seconds));
        let evidence = format!(
            "pid {pid}, role {user}, application {application:?}, from {host}, {state}, {} transactions behind{}",
            xids.unwrap_or_default(),
            if waits.is_empty() { String::new() } else { format!(", waits for {waits}") }
        );
        let fix = match ours {
            // It reads all the time, so it can only have been stopped.
            true => format!("is its process stopped or frozen? End it, or: select pg_terminate_backend({pid})"),
            false => format!(
                "have it end its transaction; what it did not commit is undone by select pg_terminate_backend({pid}). For the \
                 future: alter role {} set idle_in_transaction_session_timeout = '1 min'",
                identifier(&user)
            ),
        };
        findings.push(Finding::new("horizon", level(seconds), what).evidence(evidence).fix(fix));
    }
    for row in session.rows(PREPARED).await? {
        let (gid, owner, seconds, xids): (String, String, f64, i32) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        if seconds >= old {
            findings.push(
                Finding::problem(
                    "horizon",
                    format!(
                        "a prepared transaction is {} old, and will stay for ever: dead rows stay with it",
                        age(seconds)
                    ),
                )
                .evidence(format!("gid {gid:?}, owner {owner}, {xids} transactions behind"))
                .fix(format!(
                    "ask its transaction manager what becomes of it; its owner then says commit prepared '{gid}' or \
                     rollback prepared '{gid}'",
                    gid = gid.replace('\'', "''")
                )),
            );
        }
    }
    for row in session.rows(SLOTS).await? {
        let (name, active, xids, wal): (String, bool, Option<i32>, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        if !active || xids.is_some_and(many) {
            let keeps = if xids.is_some() { "dead rows and WAL" } else { "WAL" };
            let unused = if active { "" } else { ", and nobody uses it" };
            let behind = xids.map_or_else(String::new, |xids| format!("{xids} transactions behind, "));
            findings.push(
                Finding::warning("horizon", format!("replication slot {name} keeps {keeps}{unused}"))
                    .evidence(format!("{behind}WAL {wal}"))
                    .fix(format!("bring its standby back, or: select pg_drop_replication_slot('{name}')")),
            );
        }
    }
    for row in session.rows(FEEDBACK).await? {
        let (name, xids): (String, i32) = (row.try_get(0)?, row.try_get(1)?);
        if many(xids) {
            findings.push(
                Finding::warning("horizon", format!("{name} keeps dead rows by hot_standby_feedback"))
                    .evidence(format!("{xids} transactions behind"))
                    .fix(
                        "end its long query; or, on that standby: alter system set hot_standby_feedback = off; select \
                         pg_reload_conf()",
                    ),
            );
        }
    }
    if findings.is_empty() {
        let all: bool = session.row(MAY_SEE).await?.try_get(0)?;
        findings.push(match all {
            true => Finding::ok(
                "horizon",
                format!("the oldest transaction is {} old, nothing holds back vacuum", age(oldest)),
            ),
            false => Finding::note("horizon", "this role sees its own transactions only, and those are young")
                .fix("grant pg_monitor to it, or ask as somebody who has that"),
        });
    }
    Ok(findings)
}

/// Beside the queue: sessions that may be the listener that does not read. One in a transaction is told nothing until it
/// ends, and whoever began first holds up the others.
const QUEUE: &str = "select pg_notification_queue_usage(), s.pids[1], s.named \
    from (select array_agg(l.pid), string_agg(l.named, '; ') \
            from (select a.pid, format('pid %s (role %s, application \"%s\", %s)', a.pid, a.usename, a.application_name, a.state) \
                    from pg_stat_activity a \
                   where a.wait_event = 'ClientWrite' or a.state in ('idle in transaction', 'idle in transaction (aborted)') \
                   order by a.xact_start nulls last limit 3) l (pid, named)) s (pids, named)";
const QUEUE_WARNING: f64 = 0.01;
const QUEUE_PROBLEM: f64 = 0.25;

/// From half on nobody of ours rings, so that no publish fails for it; commits of others that notify do when it is full.
pub(super) async fn notify_queue(session: &mut Session) -> Result<Vec<Finding>> {
    let row = session.row(QUEUE).await?;
    let (usage, first, named): (f64, Option<i32>, Option<String>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let what = format!("the notification queue is {:.1} % full", usage * 100.0);
    if usage < QUEUE_WARNING {
        return Ok(vec![Finding::ok("notify_queue", what)]);
    }
    let level = if usage < QUEUE_PROBLEM { Level::Warning } else { Level::Problem };
    let what =
        format!("{what}: a listener does not read; from half on no bell rings, and messages are found by sweeps");
    let fix = "have that listener read, or end its transaction".to_owned();
    Ok(vec![
        Finding::new("notify_queue", level, what)
            .evidence(named.unwrap_or_else(|| "no session stands out".to_owned()))
            .fix(match first {
                Some(pid) => format!("{fix}; what it did not commit is undone by select pg_terminate_backend({pid})"),
                None => fix,
            }),
    ])
}
