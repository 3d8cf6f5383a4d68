//! Draining a backlog of messages whose handlers do nothing: with a lease, held, and in a transaction.

use serde_json::json;

use crate::{
    Lab, Result,
    floor::{self, Claimer, Way},
    measure::{Case, Effort, Scenario, median, number, say},
    ours::{HOLDS_AFTER, Handling, Process},
};

const SIZES: [(usize, &str); 3] = [(100, "100 B"), (1000, "1 KB"), (10_000, "10 KB")];
const TX_SIZES: [(usize, &str); 1] = [(100, "100 B")];
const BATCHES: [i64; 2] = [100, 1000];
const CLAIMERS: [usize; 2] = [1, 2];

/// Ten times the bytes, a quarter of the messages: filling must not take longer than draining.
const LARGE: usize = 10_000;

pub async fn drain(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    let cases = compare(lab, effort, Handling::Leased, Way::Leased, &SIZES).await?;
    let settings = json!({
        "messages": effort.messages, "messages_10_kb": effort.messages / 4, "rounds": effort.rounds,
        "ours": "one process, concurrency 1000, from the start of the consumer to the last settle",
        "floor_batches": BATCHES, "floor_connections": CLAIMERS,
        "before_each": "truncate, fill, vacuum analyze, checkpoint",
    });
    Ok(Scenario::new("drain", settings, cases))
}

pub async fn held_drain(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    let cases = compare(lab, effort, Handling::Held, Way::Locked, &SIZES).await?;
    let settings = json!({
        "messages": effort.messages, "messages_10_kb": effort.messages / 4, "rounds": effort.rounds,
        "ours": "one process, plain handlers, concurrency 1000",
        "floor_batches": BATCHES, "floor_connections": CLAIMERS,
        "before_each": "truncate, fill, vacuum analyze, checkpoint",
    });
    Ok(Scenario::new("held-drain", settings, cases))
}

pub async fn tx_drain(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    let cases = compare(lab, effort, Handling::Transactional, Way::Locked, &TX_SIZES).await?;
    let config = Handling::Transactional.config();
    let settings = json!({
        "messages": effort.messages, "rounds": effort.rounds,
        "ours": format!("one process, on_tx, concurrency {}", config.concurrency),
        "floor_batches": BATCHES, "floor_connections": CLAIMERS,
        "before_each": "truncate, fill, vacuum analyze, checkpoint",
    });
    Ok(Scenario::new("tx-drain", settings, cases))
}

async fn compare(
    lab: &Lab,
    effort: &Effort,
    handling: Handling,
    way: Way,
    sizes: &[(usize, &str)],
) -> Result<Vec<Case>> {
    let process = Process::start(lab).await?;
    if handling != Handling::Leased {
        tokio::time::sleep(HOLDS_AFTER).await;
    }
    let claimers = [Claimer::open(&lab.url).await?, Claimer::open(&lab.url).await?];
    let mut cases = Vec::new();
    for &(bytes, size) in sizes {
        let messages = if bytes >= LARGE { (effort.messages / 4).max(1) } else { effort.messages };
        let rate = |took: std::time::Duration| messages as f64 / took.as_secs_f64();
        let mut ours = Vec::new();
        let mut floors = vec![Vec::new(); CLAIMERS.len() * BATCHES.len()];
        // The first round makes connections and plans, on both sides; it does not count.
        for round in 0..=effort.rounds {
            let ways = CLAIMERS.iter().flat_map(|&count| BATCHES.map(|batch| (count, batch)));
            for (at, (count, batch)) in ways.enumerate() {
                if round > 0 || bytes == sizes[0].0 {
                    lab.fill(messages, bytes).await?;
                    let took = floor::drain(&claimers[..count], way, batch).await?;
                    if round > 0 {
                        floors[at].push(rate(took));
                    }
                }
            }
            if round > 0 || bytes == sizes[0].0 {
                lab.fill(messages, bytes).await?;
                let drained = process.drain(handling, messages).await?;
                lab.drained().await?;
                if round > 0 {
                    ours.push(drained.rate());
                }
            }
        }
        let best = |count: usize| {
            let of = CLAIMERS.iter().position(|&claimers| claimers == count).unwrap_or(0) * BATCHES.len();
            let by_rate = |a: &usize, b: &usize| median(&floors[of + a]).total_cmp(&median(&floors[of + b]));
            let batch = (0..BATCHES.len()).max_by(by_rate).unwrap_or(0);
            (BATCHES[batch], &floors[of + batch])
        };
        let (one, two) = (best(1), best(2));
        say(format_args!(
            "drain, {size}: floor {}/s with one connection, {}/s with two; ours {}/s",
            number(median(one.1)),
            number(median(two.1)),
            number(median(&ours))
        ));
        let strictest = if median(one.1) > median(two.1) { 1 } else { 2 };
        for (count, (batch, samples)) in [(1, one), (2, two)] {
            let plural = if count == 1 { "connection" } else { "connections" };
            let what =
                if way == Way::Leased { "claim + complete, two statements" } else { "lock + complete, one commit" };
            let case = Case::new(format!("{size}, floor with {count} {plural}"), "messages/s", &ours, samples)
                .against(format!("{what}, batch {batch}, {count} {plural}"))
                .also("payload_bytes", bytes as f64)
                .also("floor_batch", batch as f64);
            // The smallest payload shows the most of what we add, the better floor the most of what is missing.
            let is_headline = bytes == sizes[0].0 && count == strictest;
            cases.push(if is_headline { case.target(0.9) } else { case });
        }
    }
    process.close().await?;
    lab.clear().await?;
    Ok(cases)
}
