//! The fleet: who consumes, who stopped, and what waits for nobody.

use super::{
    Options,
    finding::{Finding, Level},
    session::{Session, age},
};
use crate::{config::BrokerConfig, error::Result, written::shell::quoted};

/// Somebody rescues within a beat or two; who is still listed so long after its lease is seen by nobody.
const UNSEEN_AFTER: f64 = 5.0;

const PROCESSES: &str = "select c.owner, c.host, c.pid, c.application, \
        extract(epoch from integration.clock() - c.beat_at)::float8, extract(epoch from integration.clock() - c.lease_until)::float8, \
        c.locked_on is not distinct from pg_postmaster_start_time(), c.version, \
        (select count(*) from integration.data_staging d where d.status = 'processing' and d.owner = c.owner) \
    from integration.processes c order by c.started_at, c.owner";

pub(super) async fn processes(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let (mut alive, mut unlocked, mut others) = (0, Vec::new(), Vec::new());
    for row in session.rows(PROCESSES).await? {
        let (owner, host, pid, application): (String, String, i32, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let (beat, over, locked, version, held): (f64, f64, bool, String, i64) =
            (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
        if over > UNSEEN_AFTER {
            let level = if held > 0 { Level::Problem } else { Level::Warning };
            let what = format!("a process stopped beating {} ago and nobody rescues from it", age(beat));
            findings.push(
                Finding::new("processes", level, what)
                    .evidence(format!(
                        "{owner} (pid {pid} on {host}, application {application:?}) holds {held} messages"
                    ))
                    .fix("start any consumer, each rescues for all; or: select integration.rescue()"),
            );
        } else if over > 0.0 {
            findings.push(
                Finding::note(
                    "processes",
                    format!("a process stopped beating {} ago; its messages are about to be rescued", age(beat)),
                )
                .evidence(format!("{owner} holds {held} messages")),
            );
        } else {
            alive += 1;
            if !locked {
                unlocked.push(owner);
            }
            if version != env!("CARGO_PKG_VERSION") {
                others.push(version);
            }
        }
    }
    if !unlocked.is_empty() {
        findings.push(
            Finding::note(
                "processes",
                format!(
                    "{} of {alive} processes hold no session lock: a death is noticed by the lease alone",
                    unlocked.len()
                ),
            )
            .evidence(unlocked.join(", "))
            .fix(
                "nothing when they just started or the server just restarted; else they are behind a pooler: see bell",
            ),
        );
    }
    if !others.is_empty() {
        findings.push(
            Finding::note(
                "processes",
                format!("{} processes run another version of Doorbell than this program", others.len()),
            )
            .evidence(others.join(", ")),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok("processes", format!("{alive} processes consume, all beat")));
    }
    Ok(findings)
}

const CONNECTIONS: &str = "select count(*)::integer, current_setting('max_connections')::integer, \
        current_setting('superuser_reserved_connections')::integer \
        + coalesce(current_setting('reserved_connections', true), '0')::integer \
    from integration.processes c where c.lease_until > integration.clock()";

/// Whether all processes find room when each opens what it may at once, as after a failover.
pub(super) async fn connections(session: &mut Session) -> Result<Vec<Finding>> {
    let row = session.row(CONNECTIONS).await?;
    let (processes, most, reserved): (i32, i32, i32) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    // Heartbeat and listener beside the pool.
    let each = BrokerConfig::default().connections_max as i32 + 2;
    if processes.saturating_mul(each) <= most - reserved {
        return Ok(Vec::new());
    }
    let what =
        format!("{processes} processes of up to {each} connections want more than the {} there are", most - reserved);
    Ok(vec![
        Finding::warning("connections", what)
            .evidence(format!(
                "max_connections {most}, {reserved} of them reserved; counted with the default connections_max. After a failover \
                 all connect at once, and what watches over the cluster must find a connection, too"
            ))
            .fix("lower connections_max of the processes, limit their role (alter role … connection limit), or raise max_connections"),
    ])
}

const TARGETS: &str = "select s.target_app, s.pending, s.failed, coalesce(extract(epoch from s.oldest_age), 0)::float8, \
        t.paused_at is not null, concat_ws(': ', t.paused_by, t.pause_reason), coalesce(t.bell, 'on_demand'), \
        coalesce(b.state, 'closed'), coalesce(b.reason, ''), \
        (select count(*) from integration.processes c where c.lease_until > integration.clock() and c.targets ? s.target_app) \
    from integration.stats s \
    left join integration.targets t on t.target_app = s.target_app \
    left join integration.breakers b on b.breaker_key = coalesce(t.breaker_key, s.target_app) \
    order by s.target_app";

pub(super) async fn targets(session: &mut Session, options: &Options) -> Result<Vec<Finding>> {
    let long = options.waiting_long.as_secs_f64();
    let mut findings = Vec::new();
    let mut count = 0;
    for row in session.rows(TARGETS).await? {
        count += 1;
        let (target, pending, failed, oldest): (String, i64, i64, f64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let (paused, by, bell): (bool, String, String) = (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
        let (breaker, reason, live): (String, String, i64) = (row.try_get(7)?, row.try_get(8)?, row.try_get(9)?);
        let waiting = format!("{pending} pending, the oldest for {}; {live} live consumers", age(oldest));
        if paused {
            findings.push(
                Finding::note("targets", format!("{target} is paused"))
                    .evidence(format!("by {by}; {waiting}"))
                    .fix(format!("doorbell resume {}", quoted(&target))),
            );
        }
        if breaker != "closed" {
            findings.push(
                Finding::warning("targets", format!("the breaker of {target} is {breaker}"))
                    .evidence(format!("{reason}; {waiting}"))
                    .fix(format!("when its dependency is well: doorbell breaker close {}", quoted(&target))),
            );
        }
        if bell == "off" {
            findings
                .push(Finding::note("targets", format!("the bell of {target} is switched off: its consumers sweep")));
        }
        if pending > 0 && oldest >= long && !paused && breaker == "closed" {
            findings.push(match live {
                0 => Finding::warning("targets", format!("messages for {target} wait, and nobody consumes them"))
                    .evidence(waiting)
                    .fix("start a consumer; one that claims by plain SQL is not seen here, and may be slow or gone"),
                _ => Finding::warning("targets", format!("messages for {target} wait although it is consumed"))
                    .evidence(waiting)
                    .fix(
                        "more consumers or concurrency; or nobody accepts their record type: doorbell processes --json",
                    ),
            });
        }
        if failed > 0 {
            findings.push(
                Finding::note("targets", format!("{target} has {failed} dead letters"))
                    .fix(format!("doorbell redrive --target {} --dry-run", quoted(&target))),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("targets", format!("{count} targets, none waits for long")));
    }
    Ok(findings)
}

const STUCK: &str = "select count(*), coalesce(string_agg(distinct o.target_app, ', '), '') from integration.orphans o";

/// Claims by plain SQL that nobody can watch.
pub(super) async fn stuck(session: &mut Session) -> Result<Vec<Finding>> {
    let row = session.row(STUCK).await?;
    let (count, targets): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(vec![match count {
        0 => Finding::ok("stuck", "nothing has been processing for an hour without an owner"),
        _ => Finding::warning(
            "stuck",
            format!("{count} messages have been processing for over an hour, and nobody is known to have them"),
        )
        .evidence(format!("targets: {targets}; claimed by plain SQL, so that their consumer's death cannot be seen"))
        .fix(session.schema().sql(
            "make sure that whoever claimed them has ended, and set foreign_lease of the targets for the future; then: \
             update integration.data_staging set status = 'pending' where status = 'processing' \
             and id in (select id from integration.orphans)",
        )),
    }])
}
