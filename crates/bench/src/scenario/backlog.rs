//! Whether claims stay flat: with a deep backlog, beside many scheduled messages, and behind what a pinned vacuum horizon
//! keeps.

use std::time::{Duration, Instant};

use doorbell::ConsumerConfig;
use serde_json::json;
use tokio_postgres::{Client, Config, NoTls};

use super::{
    cost::{self, BATCH, Begin, ClaimCost},
    wake,
};
use crate::{
    Lab, Result, TARGET, connect,
    measure::{Case, Effort, Scenario, median, number, say},
    ours::Handling,
    raw,
};

const BYTES: usize = 100;
const SHALLOW: u64 = 1000;

/// Claims are small, so that each of them has to find its beginning: large ones would hide what that costs.
const CONCURRENCY: usize = 50;

pub async fn backlog(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    let mut cases = Vec::new();
    lab.fill(SHALLOW, BYTES).await?;
    let shallow = cost::claim(lab, Begin::Beginning).await?;
    lab.fill(effort.messages, BYTES).await?;
    let (usual, usual_blocks) = cost::drain(lab, Handling::Leased.config(), effort.messages).await?;
    for depth in [effort.deep / 10, effort.deep] {
        lab.fill(depth, BYTES).await?;
        let deep = cost::claim(lab, Begin::Beginning).await?;
        let name = format!("{} pending", number(depth as f64));
        cases.extend(claims(&name, &deep, &shallow, &format!("{SHALLOW} pending")));
        let first = effort.messages.min(depth);
        let config = ConsumerConfig { messages_max: usize::try_from(first).ok(), ..Handling::Leased.config() };
        let (drained, blocks) = cost::drain(lab, config, first).await?;
        let what = format!("first {} of {}", number(first as f64), name);
        let against = format!("a backlog of {}", number(effort.messages as f64));
        cases.push(
            Case::new(format!("{what}, drain"), "messages/s", &[drained.rate()], &[usual.rate()]).against(&against),
        );
        cases.push(
            Case::new(format!("{what}, blocks per message"), "blocks", &[blocks], &[usual_blocks])
                .lower()
                .against(against)
                .also("depth", depth as f64),
        );
    }
    lab.clear().await?;
    lab.add(TARGET, "scheduled", effort.deep, BYTES).await?;
    lab.add(TARGET, "pending", SHALLOW, BYTES).await?;
    lab.settle_down().await?;
    let beside = cost::claim(lab, Begin::Beginning).await?;
    let name = format!("{SHALLOW} pending beside {} scheduled", number(effort.deep as f64));
    cases.extend(claims(&name, &beside, &shallow, &format!("{SHALLOW} pending alone")));
    lab.clear().await?;
    // The headline is the deepest backlog.
    for case in &mut cases {
        if case.case.starts_with(&number(effort.deep as f64)) && matches!(case.unit, "buffers" | "ms") {
            *case = case.clone().target(1.2);
        }
    }
    let settings = json!({
        "claim": format!("explain (analyze, buffers) select * from integration.claim(…, {BATCH}, …), rolled back, plans warm, median of 9"),
        "drain_messages": effort.messages, "payload_bytes": BYTES,
        "blocks_per_message": "heap and index blocks of data_staging by pg_statio_user_tables while the consumer drains",
        "before_each": "truncate, fill, vacuum analyze, checkpoint",
    });
    Ok(Scenario::new("backlog", settings, cases))
}

fn claims(name: &str, ours: &ClaimCost, other: &ClaimCost, against: &str) -> [Case; 2] {
    let against = format!("a claim at {against}");
    say(format_args!(
        "{name}: {} buffers and {} ms a claim; {against}: {} and {}",
        number(median(&ours.buffers)),
        number(median(&ours.ms)),
        number(median(&other.buffers)),
        number(median(&other.ms))
    ));
    [
        Case::new(format!("{name}, buffers per claim"), "buffers", &ours.buffers, &other.buffers)
            .lower()
            .against(&against),
        Case::new(format!("{name}, time per claim"), "ms", &ours.ms, &other.ms).lower().against(against),
    ]
}

/// After this, no further turn of the long drains is begun.
const LONG: Duration = Duration::from_secs(60);

/// Sessions that keep vacuum from removing anything that was there when they began, by a snapshot, and looks from moving on, by
/// the id of a transaction: one in this database, one in another.
pub(super) struct Pin([Client; 2]);

impl Pin {
    pub(super) async fn hold(lab: &Lab) -> Result<Self> {
        let mut elsewhere: Config = lab.url.parse()?;
        let other = if elsewhere.get_dbname() == Some("postgres") { "template1" } else { "postgres" };
        let (elsewhere, connection) = elsewhere.dbname(other).connect(NoTls).await?;
        // Ends with its client.
        tokio::spawn(connection);
        let here = connect(&lab.url).await?;
        for client in [&here, &elsewhere] {
            let begin = "begin isolation level repeatable read; select pg_current_xact_id(), count(*) from pg_class";
            client.batch_execute(begin).await?;
        }
        Ok(Self([here, elsewhere]))
    }

    pub(super) async fn release(self) -> Result<()> {
        for client in self.0 {
            client.batch_execute("rollback").await?;
        }
        Ok(())
    }
}

pub async fn pinned(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    let behind = effort.deep / 5;
    let mut cases = Vec::new();
    let (free, free_sweep, free_wake) = behind_completed(lab, effort, behind, false).await?;
    let (held, held_sweep, held_wake) = behind_completed(lab, effort, behind, true).await?;
    let name = format!("pinned, behind {} completed", number(behind as f64));
    let [buffers, time] = claims(&name, &held, &free, "the same, vacuumed");
    cases.push(buffers.target(1.2));
    cases.push(time);
    cases.extend(claims(
        &format!("{name}, from the beginning (each sweep)"),
        &held_sweep,
        &free_sweep,
        "the same, vacuumed",
    ));
    let wake = Case::new(format!("{name}, wake-up p50"), "ms", &held_wake, &free_wake);
    cases.push(wake.lower().against("the same, vacuumed").target(1.2));
    let delayed = effort.deep / 10;
    let free = behind_delayed(lab, delayed, false).await?;
    let held = behind_delayed(lab, delayed, true).await?;
    let name = format!("pinned, behind {} delayed and completed", number(delayed as f64));
    let [buffers, time] = claims(&name, &held, &free, "the same, vacuumed");
    cases.push(buffers.target(1.2));
    cases.push(time);

    let backlog = behind + effort.messages;
    let (mut first, mut last, mut all) = ([vec![], vec![]], [vec![], vec![]], [vec![], vec![]]);
    let mut rates = [vec![], vec![]];
    let began = Instant::now();
    for _ in 0..effort.rounds.min(2) {
        // Where a pinned horizon hurts, one turn takes minutes and shows it.
        if began.elapsed() > LONG {
            break;
        }
        for (at, is_pinned) in [false, true].into_iter().enumerate() {
            lab.fill(backlog, BYTES).await?;
            let pin = if is_pinned { Some(Pin::hold(lab).await?) } else { None };
            let config = ConsumerConfig { concurrency: CONCURRENCY, ..Handling::Leased.config() };
            let (drained, _) = cost::drain(lab, config, backlog).await?;
            if let Some(pin) = pin {
                pin.release().await?;
            }
            rates[at] = drained.rates();
            first[at].extend(rates[at].first());
            last[at].extend(rates[at].last());
            all[at].push(drained.rate());
            say(format_args!(
                "{} of {}: {}/s; first tenth {}/s, last {}/s",
                if is_pinned { "pinned drain" } else { "drain" },
                number(backlog as f64),
                number(drained.rate()),
                number(median(&first[at])),
                number(median(&last[at]))
            ));
        }
    }
    let drain = |what: &str, ours: &[f64], floor: &[f64], against: &str| {
        Case::new(format!("drain of {}, {what}", number(backlog as f64)), "messages/s", ours, floor).against(against)
    };
    cases.push(
        drain("pinned", &all[1], &all[0], "unpinned")
            .series("pinned_rates", std::mem::take(&mut rates[1]))
            .series("unpinned_rates", std::mem::take(&mut rates[0]))
            .also("tenth_messages", backlog as f64 / 10.0),
    );
    cases.push(drain("last tenth pinned", &last[1], &last[0], "last tenth unpinned"));
    cases.push(drain("pinned, last tenth", &last[1], &first[1], "its first tenth"));
    cases.push(drain("unpinned, last tenth", &last[0], &first[0], "its first tenth"));
    lab.clear().await?;
    let settings = json!({
        "pinned": "a session with an open REPEATABLE READ snapshot and the id of a transaction, taken before anything was completed, and one more in another database",
        "wake-up": "by a process that starts after everything was completed, and finds no places kept",
        "claim": format!("as in backlog, batch {BATCH}, {SHALLOW} pending behind the completed ones, from the place of a consumer that completed them; delayed ones are in an order of their own, by when they became due"),
        "drain": format!("one process, concurrency {CONCURRENCY}"), "rounds": all[0].len(), "payload_bytes": BYTES,
    });
    Ok(Scenario::new("pinned", settings, cases))
}

/// The cost of a claim of messages that were delayed, when all such messages before were completed.
async fn behind_delayed(lab: &Lab, completed: u64, is_pinned: bool) -> Result<ClaimCost> {
    lab.fill(completed, BYTES).await?;
    let pin = if is_pinned { Some(Pin::hold(lab).await?) } else { None };
    let everything = raw(&lab.url).await?;
    everything
        .batch_execute(
            "update integration.data_staging set requeued_at = clock_timestamp(); \
             update integration.data_staging set status = 'completed', processed_at = clock_timestamp()",
        )
        .await?;
    lab.add(TARGET, "pending", SHALLOW, BYTES).await?;
    let due = "update integration.data_staging set requeued_at = clock_timestamp() where status = 'pending'";
    everything.batch_execute(due).await?;
    lab.settle_down().await?;
    let claims = cost::claim(lab, Begin::Again).await?;
    if let Some(pin) = pin {
        pin.release().await?;
    }
    Ok(claims)
}

/// The cost of a claim, and wake-ups, when everything before was completed.
async fn behind_completed(
    lab: &Lab,
    effort: &Effort,
    completed: u64,
    is_pinned: bool,
) -> Result<(ClaimCost, ClaimCost, Vec<f64>)> {
    lab.fill(completed, BYTES).await?;
    let pin = if is_pinned { Some(Pin::hold(lab).await?) } else { None };
    let everything = raw(&lab.url).await?;
    everything
        .batch_execute(
            "update integration.data_staging set status = 'processing', attempt = 1, owner = 'floor'; \
             update integration.data_staging set status = 'completed', owner = null, processed_at = clock_timestamp()",
        )
        .await?;
    lab.add(TARGET, "pending", SHALLOW, BYTES).await?;
    lab.settle_down().await?;
    let claims = cost::claim(lab, Begin::Place).await?;
    let sweeps = cost::claim(lab, Begin::Beginning).await?;
    // Long enough for it to hold messages, as it does once it has run for some seconds.
    let wakes = wake::sample(lab, effort.latencies, false).await?;
    if let Some(pin) = pin {
        pin.release().await?;
    }
    Ok((claims, sweeps, wakes.acknowledged))
}
