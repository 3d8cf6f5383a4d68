//! Many consumer processes on one target, and many consumers in one process.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use doorbell::{BrokerConfig, ConsumerConfig};
use futures::future::select_all;
use serde_json::json;

use super::cost;
use crate::{
    Lab, Result, TARGET,
    child::{CONCURRENCY, ConsumerProcess},
    measure::{Case, Effort, Scenario, number, say},
};

const SIZES: [usize; 4] = [1, 4, 16, 64];
const BYTES: usize = 100;
/// What the largest fleet may cost beside one process: 64, and fewer.
const LARGEST_MAX: f64 = 1.5;
const FEWER_MAX: f64 = 1.3;

const COMMITS: &str =
    "select (xact_commit + xact_rollback)::float8 from pg_stat_database where datname = current_database()";
const UNSETTLED: &str = "select count(*)::float8 from integration.data_staging where status <> 'completed'";
const CONNECTIONS: &str = "select count(*)::float8 from pg_stat_activity where datname = current_database() and application_name like 'doorbell%'";

/// One drain by a fleet, per message where it is not a rate.
struct Fleet {
    rate: f64,
    blocks: f64,
    commits: f64,
    unsettled: f64,
}

/// The cost of a message for each size of a fleet beside that of one process.
pub async fn fleet(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    let sizes: Vec<usize> = SIZES.into_iter().filter(|&size| size <= effort.processes.max(1)).collect();
    // So many that what a process does once at its start hardly counts.
    let messages = effort.messages * 3;
    let mut all: Vec<Vec<Fleet>> = sizes.iter().map(|_| Vec::new()).collect();
    for _ in 0..effort.rounds {
        for (at, &size) in sizes.iter().enumerate() {
            all[at].push(drain(lab, size, messages).await?);
        }
    }
    let of = |at: usize, what: fn(&Fleet) -> f64| all[at].iter().map(what).collect::<Vec<f64>>();
    let mut cases = Vec::new();
    for (at, size) in sizes.iter().enumerate() {
        let against = "one process, same run";
        let case = Case::new(
            format!("{size} processes, blocks per message"),
            "blocks",
            &of(at, |f| f.blocks),
            &of(0, |f| f.blocks),
        )
        .lower()
        .against(against)
        .also("processes", *size as f64)
        .also("unsettled", all[at].iter().map(|f| f.unsettled).sum());
        let last = at + 1 == sizes.len();
        let most = if *size == SIZES[SIZES.len() - 1] { LARGEST_MAX } else { FEWER_MAX };
        cases.push(if last { case.target(most) } else { case });
        cases.push(
            Case::new(format!("{size} processes, drain"), "messages/s", &of(at, |f| f.rate), &of(0, |f| f.rate))
                .against(against),
        );
        cases.push(
            Case::new(
                format!("{size} processes, transactions per message"),
                "transactions",
                &of(at, |f| f.commits),
                &of(0, |f| f.commits),
            )
            .lower()
            .against(against),
        );
    }
    lab.restore(lab.audit_level().await?).await?;
    let settings = json!({
        "messages": messages, "payload_bytes": BYTES, "rounds": effort.rounds,
        "process": format!("this program, one consumer, concurrency {CONCURRENCY}"),
        "drain": "from resuming the target to the last handler, as the processes tell every 10 ms; heartbeats and the looks of parked consumers are counted, too",
    });
    Ok(Scenario::new("fleet", settings, cases))
}

async fn drain(lab: &Lab, size: usize, messages: u64) -> Result<Fleet> {
    lab.fill(messages, BYTES).await?;
    lab.execute(&format!("select integration.pause('{TARGET}', 'bench')")).await?;
    let mut fleet = Vec::new();
    for _ in 0..size {
        fleet.push(ConsumerProcess::start(lab, 1).await?.0);
    }
    let commits = commits(lab).await?;
    let blocks = lab.number(cost::BLOCKS, &[]).await?;
    let began = Instant::now();
    lab.execute(&format!("select integration.resume('{TARGET}')")).await?;
    // Nobody asks the database meanwhile: that would count, too.
    let handled = AtomicU64::new(0);
    let listening = fleet.iter_mut().map(|process| {
        let handled = &handled;
        Box::pin(async move {
            let mut known = 0;
            loop {
                let report = process.report().await?;
                let more = report.handled - known;
                known = report.handled;
                if handled.fetch_add(more, Ordering::Relaxed) + more >= messages {
                    return Result::Ok(());
                }
            }
        })
    });
    select_all(listening).await.0?;
    let took = began.elapsed();
    for process in fleet {
        process.stop().await?;
    }
    let messages = messages as f64;
    let blocks = (cost::blocks(lab).await? - blocks) / messages;
    let commits = (self::commits(lab).await? - commits).max(0.0) / messages;
    // Where too many want too much of too few processors, a process may end before it has settled what it handled. The
    // next one would rescue that; here there is none.
    let unsettled = lab.number(UNSETTLED, &[]).await?;
    let rate = messages / took.as_secs_f64();
    say(format_args!(
        "fleet of {size}: {}/s, {} blocks and {} transactions per message",
        number(rate),
        number(blocks),
        number(commits)
    ));
    Ok(Fleet { rate, blocks, commits, unsettled })
}

async fn commits(lab: &Lab) -> Result<f64> {
    lab.flushed().await?;
    lab.number(COMMITS, &[]).await
}

/// What consumers cost that have nothing to do.
pub async fn idle(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    lab.clear().await?;
    lab.settle_down().await?;
    let (mut process, mut report) = ConsumerProcess::start(lab, effort.consumers).await?;
    // Everybody has looked once and parked.
    let seconds = effort.latencies.as_secs().max(1);
    for _ in 0..seconds.min(5) {
        report = process.report().await?;
    }
    let (before, cpu, began) = (commits(lab).await?, report.cpu_s, Instant::now());
    for _ in 0..seconds {
        report = process.report().await?;
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let connections = lab.number(CONNECTIONS, &[]).await?;
    let transactions = (commits(lab).await? - before) / minutes;
    process.stop().await?;
    let consumers = effort.consumers as f64;
    let per_minute = |every: Duration| 60.0 / every.as_secs_f64();
    let sweep = ConsumerConfig::default().sweep.map_or(0.0, per_minute);
    let needed =
        per_minute(BrokerConfig::default().beat) + per_minute(BrokerConfig::default().ping) + consumers * sweep;
    let bytes = (report.bytes - report.bytes_before) / consumers;
    let cpu = (report.cpu_s - cpu) / (minutes * 60.0);
    say(format_args!(
        "{consumers} idle consumers: {connections} connections, {} transactions a minute, {} KiB each, {:.1} % of a core",
        number(transactions),
        number(bytes / 1024.0),
        cpu * 100.0
    ));
    let name = format!("{consumers} consumers in one process");
    let cases = vec![
        Case::new(format!("{name}, memory each"), "KiB", &[bytes / 1024.0], &[16.0])
            .lower()
            .against("what the design allows")
            .target(1.0)
            .also("connections", connections)
            .also("cpu_share_of_a_core", cpu),
        Case::new(format!("{name}, transactions"), "per minute", &[transactions], &[needed])
            .lower()
            .against("a heartbeat a second, a proof of the listener every 10 s, one sweep per consumer every 5 s"),
        Case::new(format!("{name}, connections"), "connections", &[connections], &[3.0])
            .lower()
            .against("one that listens, one that beats, one that sweeps"),
        Case::new(format!("{name}, processor"), "share of a core", &[cpu], &[0.05])
            .lower()
            .against("a twentieth of a core"),
    ];
    let settings =
        json!({ "consumers": effort.consumers, "seconds": seconds, "sweep_s": 5, "targets": "one per consumer" });
    Ok(Scenario::new("idle", settings, cases))
}
