//! The fault run: producers, consumer processes and a nemesis, with a random but printed seed. Everything heals, everything
//! comes to rest, and then nothing may be lost, doubled, stuck, or unaccounted for.
//!
//! `DOORBELL_TORTURE_SECONDS` makes it longer, `DOORBELL_TORTURE_SEED` (a number, or `random`) different. Long runs are to have the
//! machine for themselves: there, a process that is believed dead was killed or frozen.

mod checker;
mod ledger;
mod nemesis;
mod pace;
mod people;
mod routes;
mod selftest;

mod worker;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use doorbell::Broker;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio_postgres::Client;

use self::{
    ledger::{Ledger, Outcome},
    nemesis::Nemesis,
};
use crate::{failover::pair::Pair, proxy::Proxy, support::connect};

const SECONDS: u64 = 35;
const SEED: u64 = 7;
/// How long nothing may move before it has come to rest. Not an assertion about speed: what is stuck is stuck for ever.
const REST: Duration = Duration::from_secs(60);

/// Short retries and no breaker. `max_crashes` is the default: who was not really killed pays nothing.
const SETTINGS: &str = "update integration.settings set backoff_base_ms = 20, backoff_cap_ms = 500, max_retries = 20, \
    breaker_samples_min = 1000000; select integration.set_audit_level('all'); \
    select integration.set_target('plain', '{\"key_failed\": \"skip\"}')";
/// By somebody whom the failure is told to. No message of the target blocks its key that always fails.
const UNBLOCK: &str = "set application_name = 'operator'; \
    select integration.unblock(b.target_app, b.ordering_key, 'redrive') from integration.blocked_keys b";

const REPLACED: &str = "select coalesce(sum(messages), 0)::bigint from integration.current_totals where target_app = 'latest' and action = 'coalesced'";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_or_stuck_whatever_fails() {
    let seconds =
        variable("DOORBELL_TORTURE_SECONDS").map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let seed = match variable("DOORBELL_TORTURE_SEED") {
        Some(text) if text == "random" => rand::random(),
        Some(text) => text.parse().expect("a seed is a number"),
        None => SEED,
    };
    println!("DOORBELL_TORTURE_SEED={seed} DOORBELL_TORTURE_SECONDS={seconds}");
    let mut random = StdRng::seed_from_u64(seed);

    let pair = Pair::start().await;
    let (primary, url) = (pair.primary.connection_string("postgres"), pair.url());
    Broker::connect(&url).await.unwrap().migrate().await.unwrap();
    let client = connect(&url).await;
    client.batch_execute(SETTINGS).await.unwrap();
    client.batch_execute(checker::SCHEMA).await.unwrap();
    client.batch_execute(routes::SCHEMA).await.unwrap();
    drop(client);
    let log = std::env::temp_dir().join(format!("doorbell-torture-{}-{seed}.log", std::process::id()));
    let proxy = Proxy::to(&primary).await;
    let (ledger, stop) = (Ledger::default(), Arc::new(AtomicBool::new(false)));
    let mut producers = tokio::task::JoinSet::new();
    for n in 0..3 {
        let name = format!("library{n}");
        producers.spawn(ledger::library(proxy.url.clone(), name, random.random(), ledger.clone(), stop.clone()));
    }
    producers.spawn(ledger::plain_sql(url.clone(), "psql".to_owned(), random.random(), ledger.clone(), stop.clone()));

    producers.spawn(routes::writes(url.clone(), random.random(), stop.clone()));
    for _ in 0..2 {
        producers.spawn(routes::speaks(url.clone(), random.random(), stop.clone()));
    }
    let asking = tokio::spawn(routes::asks(proxy.url.clone(), random.random(), stop.clone()));

    let mut nemesis = Nemesis::new(pair, proxy, ledger.clone(), log.clone(), random.random());
    nemesis.rage(Duration::from_secs(seconds)).await;
    nemesis.heal().await;
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = producers.join_next().await {
        ended.unwrap();
    }
    let answered = asking.await.unwrap();
    let mut client = connect(&url).await;
    let rested = rest(&client, nemesis.workers.len()).await;
    for worker in nemesis.workers.drain(..) {
        assert!(worker.end().await, "a consumer process failed; its log is {}", log.display());
    }

    let lines = std::fs::read_to_string(&log).unwrap();
    let counts = (ledger.count(Outcome::Ack), ledger.count(Outcome::Unknown), ledger.count(Outcome::Refused));
    ledger.load(&mut client).await;
    load_runs(&mut client, &lines).await;
    for (op, reply) in &answered {
        client.execute("insert into chk.answered values ($1, $2)", &[op, reply]).await.unwrap();
    }
    let crashes: usize = ["server killed", "server restarted", "server away", "failed over"]
        .iter()
        .filter_map(|fault| nemesis.done.get(fault))
        .sum();
    client.execute("update chk.crashes set n = $1", &[&(crashes as i64)]).await.unwrap();
    for consumer in &nemesis.killed {
        client.execute("insert into chk.killed values ($1)", &[&consumer.to_string()]).await.unwrap();
    }
    for consumer in &nemesis.frozen {
        client.execute("insert into chk.frozen values ($1)", &[&consumer.to_string()]).await.unwrap();
    }
    let said = |text: &str| lines.lines().filter(|line| line.starts_with("log|") && line.contains(text)).count();
    let stale = said("settles came too late");
    let unsure = said("settling failed") + said("asking whether a commit happened");
    let strays = said("gave back messages that nothing here knows");
    let one = |sql: &'static str| number(&client, sql);
    let summary = json!({
        "seed": seed, "seconds": seconds, "acknowledged": counts.0, "unknown": counts.1, "refused": counts.2,
        "messages": one("select count(*) from chk.msg").await,
        "completed": one("select count(*) from chk.msg where status = 'completed'").await,
        "failed": one("select count(*) from chk.msg where status = 'failed'").await,
        "cancelled": one("select count(*) from chk.msg where status = 'cancelled'").await,
        "runs": one("select count(*) from chk.run").await,
        "effects": one("select count(*) from chk.effect").await,
        "forgotten": one("select count(*) from chk.op o where forgettable and outcome = 'ack' \
            and not exists (select from chk.msg m where m.data->>'op' = o.op)").await,
        "with_keys": one("select count(*) from chk.msg where ordering_key is not null").await,
        "series": one("select count(*) from (select from chk.msg where series > 0 group by target_app, ordering_key, series having count(*) > 1) s").await,
        "copies": one("select count(*) from chk.every where target_app = 'tapped'").await,
        "ticks": one("select count(*) from chk.tick").await,
        "images": one("select count(*) from chk.every where target_app = 'images'").await,
        "replaced": one(REPLACED).await, "heard": one("select count(*) from chk.heard").await,
        "replies": answered.len(),
        "rescued": one("select count(*) from integration.audit_log where action = 'rescued'").await,
        "redriven": one("select count(*) from integration.audit_log where action = 'redriven'").await,
        "found_by_sweep": one("select count(*) from chk.run where found = 'Sweep'").await,
        "found_by_bell": one("select count(*) from chk.run where found = 'Bell'").await,
        "settles_too_late": stale, "settles_asked_for": unsure, "claims_given_back": strays,
        "cancel_requests": nemesis.proxy.cancels(), "connections": nemesis.proxy.accepted(), "faults": nemesis.done,
    });
    println!("{summary}");
    client.batch_execute(checker::INDEXES).await.unwrap();
    let (living, broken): (Vec<_>, Vec<_>) =
        checker::violations(&client).await.into_iter().partition(|(rule, ..)| rule == checker::LIVING);
    println!("rescued from the living: {}", living.len());
    // In a short run among other tests a heartbeat may have to wait for longer than its lease.
    let broken: Vec<_> = broken.into_iter().chain(living.into_iter().filter(|_| seconds > SECONDS)).collect();
    for (rule, subject, detail) in broken.iter().take(10) {
        println!("{rule}: {subject}: {detail}\n  {}", checker::story(&client, subject).await);
    }
    assert!(broken.is_empty(), "{} violations with seed {seed}; the consumers' log is {}", broken.len(), log.display());
    assert!(rested, "it did not come to rest");
    assert_eq!(nemesis.proxy.cancels(), 0, "a statement that may have been committing was cancelled");
    // The shortest run has to be one on the slowest machine as well, where some of it may not happen in time.
    let void = |what: &str| {
        println!("void: the run proves little, because {what} did not happen; {summary}");
        assert!(seconds <= SECONDS, "void: {what} did not happen");
    };
    assert!(counts.0 > 0, "void: nothing was published");
    for (happened, what) in [
        (counts.0 as u64 >= seconds * 10, "ten acknowledged publishes a second"),
        (summary["forgotten"].as_i64() > Some(0), "a failover that lost something"),
        (summary["rescued"].as_i64() > Some(0), "a rescue"),
        (!answered.is_empty(), "a question that was answered"),
        (summary["images"].as_i64() > Some(0), "a captured change"),
        (summary["replaced"].as_i64() > Some(0), "a message that was replaced"),
        (stale + unsure > 0, "a refused or unknown settle"),
        (summary["found_by_sweep"].as_i64() > Some(0), "a find by sweep"),
    ] {
        if !happened {
            void(what);
        }
    }
    let _ = std::fs::remove_file(log);
}

/// The liveness phase: waits until nothing is left to do and nobody is left to be rescued, or until nothing moves any more.
async fn rest(client: &Client, workers: usize) -> bool {
    let left = format!(
        "select count(*) + (select abs(count(*) - {workers}) from integration.processes) \
           from integration.data_staging where status in ('pending', 'scheduled', 'processing') \
            and target_app not in ('tapped', 'ticks', 'images')"
    );
    let (mut least, mut moved) = (i64::MAX, std::time::Instant::now());
    while moved.elapsed() < REST {
        client.batch_execute(UNBLOCK).await.unwrap();
        match number(client, &left).await {
            0 => return true,
            left if left < least => (least, moved) = (left, std::time::Instant::now()),
            _ => {}
        }
        pace::look_again().await;
    }
    false
}

async fn load_runs(client: &mut Client, lines: &str) {
    let tx = client.transaction().await.unwrap();
    let insert = tx.prepare("insert into chk.run values ($1, $2, $3, $4, $5, $6, $7)").await.unwrap();
    // All processes append to one file, so its lines are in the order in which things happened.
    let ends: HashMap<&str, i64> =
        (1..).zip(lines.lines()).filter_map(|(at, line)| Some((line.strip_prefix("end|")?, at))).collect();
    for (at, line) in (1i64..).zip(lines.lines()) {
        let Some(rest) = line.strip_prefix("run|") else { continue };
        let parts: Vec<&str> = rest.split('|').collect();
        let [id, attempt, op, found, consumer, run] = parts[..] else { panic!("unreadable: {line}") };
        let (id, attempt): (i64, i32) = (id.parse().unwrap(), attempt.parse().unwrap());
        tx.execute(&insert, &[&id, &attempt, &op, &found, &consumer, &at, &ends.get(run)]).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}
