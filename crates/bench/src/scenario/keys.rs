//! What ordering keys cost: the server's processor time for claim and completion, beside the same without keys.

use std::time::{Instant, SystemTime};

use serde_json::json;
use tokio_postgres::{Client, Statement};

use super::{backlog::Pin, cost::BATCH};
use crate::{
    Lab, Result, TARGET, connect,
    measure::{Case, Effort, Scenario, median, number, say},
    ours::{Handling, Process},
};

const BYTES: usize = 100;
/// None; one hot key; some; about as many as messages.
const KEYS: [(u64, &str); 4] = [(0, "no keys"), (1, "1 key"), (50, "50 keys"), (100_000, "100,000 keys")];
/// How many times as many messages wait as are handled.
const BEHIND: u64 = 5;
/// What the design promises of one hot key, and of many.
const HOT: f64 = 2.0;
const MANY: f64 = 2.5;
/// Pinned against unpinned: flat.
const FLAT: f64 = 1.1;

/// For an hour: nobody beats.
const REGISTER: &str = "select integration.register('bench', 'bench', 1, 'bench', '0', '{}', 3600000)";
const DEREGISTER: &str = "select integration.deregister('bench')";
const CLAIM: &str = "select id, attempt, created_at, requeued_at, ahead from integration.claim($1, 'bench', $2, null, null, \
    16777216, '{1,0,-2147483648}', '{2147483647,0,-1}', array[null, $3, null]::timestamptz[], array[0, $4, 0]::bigint[], \
    array[null, $5, null]::timestamptz[], array[0, $6, 0]::bigint[], p_series => 1000)";
const COMPLETE: &str = "select count(*) from integration.complete_many('bench', $1, $2, $3)";

pub async fn keys(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    let mut costs = vec![[vec![], vec![]]; KEYS.len()];
    let mut by_cpu = true;
    for _ in 0..effort.rounds {
        for (at, (keys, _)) in KEYS.into_iter().enumerate() {
            for is_pinned in [false, true] {
                lab.fill_keyed(effort.messages * BEHIND, BYTES, keys).await?;
                let pin = if is_pinned { Some(Pin::hold(lab).await?) } else { None };
                let cost = Claimer::open(lab).await?.handle(effort.messages).await?;
                if let Some(pin) = pin {
                    pin.release().await?;
                }
                costs[at][usize::from(is_pinned)].push(cost.us);
                by_cpu &= cost.by_cpu;
            }
        }
    }
    let drains = drains(lab, effort).await?;
    lab.clear().await?;
    lab.execute(DEREGISTER).await?;
    let mut cases = Vec::new();
    for (is_pinned, what) in [(false, ""), (true, ", pinned")] {
        let without = &costs[0][usize::from(is_pinned)];
        for ((keys, name), cost) in KEYS.into_iter().zip(&costs).skip(1) {
            let cost = &cost[usize::from(is_pinned)];
            say(format_args!(
                "{name}{what}: {} µs a message, without keys {} µs",
                number(median(cost)),
                number(median(without))
            ));
            let case = Case::new(format!("{name}{what}, a message"), "µs", cost, without).lower();
            let case = case.against(format!("no keys{what}, batches of {BATCH}"));
            cases.push(case.target(if keys == 1 { HOT } else { MANY }));
        }
    }
    for ((_, name), [free, pinned]) in KEYS.into_iter().zip(&costs) {
        let case = Case::new(format!("{name}, a message, pinned"), "µs", pinned, free).lower();
        cases.push(case.against("the same, unpinned").target(FLAT));
    }
    for ((_, name), rates) in KEYS.into_iter().zip(&drains).skip(1) {
        let case = Case::new(format!("{name}, drain by a process"), "messages/s", rates, &drains[0]);
        cases.push(case.against("no keys, leased"));
    }
    let settings = json!({
        "messages": effort.messages, "waiting": effort.messages * BEHIND, "batch": BATCH, "rounds": effort.rounds,
        "payload_bytes": BYTES, "series_max": 1000,
        "a_message": if by_cpu { "processor time of the session that claims and completes, one batch after the other" }
            else { "time of the session that claims and completes: its processor time is not to be read here" },
        "before_each": "truncate, fill, vacuum analyze, checkpoint",
    });
    Ok(Scenario::new("keys", settings, cases))
}

/// Messages a second of a process that leases them, in turns, for each number of keys.
async fn drains(lab: &Lab, effort: &Effort) -> Result<Vec<Vec<f64>>> {
    let process = Process::start(lab).await?;
    let mut rates = vec![Vec::new(); KEYS.len()];
    // The first round makes connections and plans; it does not count.
    for round in 0..=effort.rounds {
        for (at, (keys, _)) in KEYS.into_iter().enumerate() {
            lab.fill_keyed(effort.messages, BYTES, keys).await?;
            let drained = process.drain(Handling::Leased, effort.messages).await?;
            lab.drained().await?;
            if round > 0 {
                rates[at].push(drained.rate());
            }
        }
    }
    process.close().await?;
    Ok(rates)
}

/// What one message cost.
struct Cost {
    us: f64,
    by_cpu: bool,
}

/// One session that does what a consumer does: claims from where its last look ended, and completes.
struct Claimer {
    client: Client,
    claim: Statement,
    complete: Statement,
    pid: i32,
}

impl Claimer {
    async fn open(lab: &Lab) -> Result<Self> {
        let client = connect(&lab.url).await?;
        client.batch_execute(REGISTER).await?;
        let (claim, complete) = (client.prepare(CLAIM).await?, client.prepare(COMPLETE).await?);
        let pid = client.query_one("select pg_backend_pid()", &[]).await?.try_get(0)?;
        Ok(Self { client, claim, complete, pid })
    }

    /// Claims and completes so many messages, after some that make plans.
    async fn handle(self, messages: u64) -> Result<Cost> {
        let warm_up = (messages / 10).clamp(1, 1000);
        let mut place = Place::default();
        let mut handled = 0;
        while handled < warm_up {
            handled += self.batch(&mut place).await?;
        }
        let (began, before) = (Instant::now(), processor_us(self.pid));
        let mut handled = 0;
        while handled < messages {
            handled += self.batch(&mut place).await?;
        }
        let used = before.zip(processor_us(self.pid)).map(|(before, after)| after - before);
        let us = used.unwrap_or(began.elapsed().as_secs_f64() * 1e6);
        Ok(Cost { us: us / handled as f64, by_cpu: used.is_some() })
    }

    /// Returns how many messages it handled.
    async fn batch(&self, place: &mut Place) -> Result<u64> {
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&TARGET, &(BATCH as i32), &place.at, &place.id, &place.again_at, &place.again_id];
        let rows = self.client.query(&self.claim, &params).await?;
        let (mut ids, mut attempts, mut created) = (Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            let (id, attempt): (i64, Option<i32>) = (row.try_get(0)?, row.try_get(1)?);
            let (at, requeued_at): (Option<SystemTime>, Option<SystemTime>) = (row.try_get(2)?, row.try_get(3)?);
            if !row.try_get::<_, bool>(4)? {
                place.saw(id, at, requeued_at);
            }
            if let (Some(attempt), Some(at)) = (attempt, at) {
                ids.push(id);
                attempts.push(attempt);
                created.push(at);
            }
        }
        if ids.is_empty() {
            return Err("no message could be claimed".into());
        }
        self.client.query(&self.complete, &[&ids, &attempts, &created]).await?;
        Ok(ids.len() as u64)
    }
}

/// Where the last look ended.
#[derive(Default)]
struct Place {
    at: Option<SystemTime>,
    id: i64,
    again_at: Option<SystemTime>,
    again_id: i64,
}

impl Place {
    fn saw(&mut self, id: i64, at: Option<SystemTime>, requeued_at: Option<SystemTime>) {
        match (requeued_at, at) {
            (Some(_), _) => (self.again_at, self.again_id) = (self.again_at, self.again_id).max((requeued_at, id)),
            (None, Some(_)) => (self.at, self.id) = (self.at, self.id).max((at, id)),
            (None, None) => {}
        }
    }
}

/// What a process on this machine has used of its processors; `None` where that cannot be read.
fn processor_us(pid: i32) -> Option<f64> {
    let is_a_server = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?.starts_with(b"postgres");
    let spent = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let ns: f64 = spent.split_whitespace().next()?.parse().ok()?;
    is_a_server.then_some(ns / 1000.0)
}
