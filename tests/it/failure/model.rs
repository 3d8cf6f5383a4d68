//! Random sequences of everything that can be done to messages, against the rules in `model::rules`: after each step every
//! row and its audit must agree. `DOORBELL_MODEL_SEED` repeats one seed; `DOORBELL_MODEL_SEEDS` and `DOORBELL_MODEL_STEPS`
//! say how many there are and how long each is.

mod claims;
mod compare;
mod rules;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio_postgres::{Client, types::ToSql};

use self::rules::{Answer, Claim, DEDUP_WINDOW, IN_FLIGHT_MAX, LEASE, LIMITED, MAX_CRASHES, MAX_RETRIES, Model, Row};
use crate::support::{Database, count};

const TARGETS: [&str; 2] = ["billing", LIMITED];
const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const OWNERS: [&str; 2] = ["one", "two"];
/// Claims with a lease of its own, and is never registered.
const LONER: &str = "loner";
/// 2030-01-01 00:00:00 UTC.
const BEGIN: u64 = 1_893_456_000;
const STATUSES: [&str; 6] = ["pending", "scheduled", "processing", "completed", "failed", "cancelled"];

/// Without these the run proves little.
const MUST_HAPPEN: [&str; 26] = [
    "taken with a key",
    "behind",
    "forgotten",
    "outage",
    "dead",
    "claimed",
    "completed",
    "failed",
    "cancelled",
    "redriven",
    "promoted",
    "scheduled",
    "rescued",
    "errored",
    "snoozed",
    "released",
    "suspect claimed",
    "suspect completed",
    "suspect failed",
    "suspect released",
    "suspect rescued",
    "MQ001",
    "MQ003",
    "MQ004",
    "23505",
    "suspect cancelled",
];

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

struct Lab {
    client: Client,
    model: Model,
    random: StdRng,
    done: Vec<String>,
}

/// When so many milliseconds of the test had passed.
fn time(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN) + Duration::from_millis(ms as u64)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

#[tokio::test]
async fn every_sequence_of_operations_leaves_what_the_rules_say() {
    let seeds: Vec<u64> = match variable("DOORBELL_MODEL_SEED") {
        Some(seed) => vec![seed],
        None => (1..=variable("DOORBELL_MODEL_SEEDS").unwrap_or(4)).collect(),
    };
    let default = seeds.len() > 1;
    let mut seen = BTreeMap::<String, usize>::new();
    let steps = variable("DOORBELL_MODEL_STEPS").unwrap_or(700);
    for seed in seeds {
        let db = Database::new().await;
        let client = db.client().await;
        client.batch_execute(&format!("
            create table public.test_clock as select '2030-01-01 00:00:00 UTC'::timestamptz as at;
            create or replace function integration.clock() returns timestamptz language sql volatile
                return (select c.at from public.test_clock c);
            select integration.set_audit_level('all');
            update integration.settings set backoff_base_ms = 0, max_retries = {MAX_RETRIES}, max_crashes = {MAX_CRASHES},
                dedup_window = '{DEDUP_WINDOW} ms';
            update integration.contact set seen_at = integration.clock(), resumed_at = integration.clock();
            insert into integration.targets (target_app, max_in_flight) values ('{LIMITED}', {IN_FLIGHT_MAX})")).await.unwrap();
        let mut lab = Lab { client, model: Model::default(), random: StdRng::seed_from_u64(seed), done: Vec::new() };
        for step in 0..steps {
            lab.step().await;
            let differences = lab.differences().await;
            let last = lab.done.iter().rev().take(15).rev().cloned().collect::<Vec<_>>().join("\n  ");
            assert!(differences.is_empty(), "DOORBELL_MODEL_SEED={seed}, step {step}:\n  {last}\n{differences}");
            if step % 25 == 0 {
                let wrong = count(&lab.client, "select count(*) from integration.check_counters()").await;
                assert_eq!(wrong, 0, "the counters differ; DOORBELL_MODEL_SEED={seed}, step {step}:\n  {last}");
                lab.client.query("select integration.fold(20)", &[]).await.unwrap();
            }
        }
        lab.model.seen.into_iter().for_each(|(what, count)| *seen.entry(what).or_default() += count);
    }
    println!("{seen:?}");
    let never: Vec<_> = MUST_HAPPEN.iter().filter(|&&what| !seen.contains_key(what)).collect();
    assert!(!default || never.is_empty(), "void: {never:?} never happened; more seeds or steps are needed");
}

impl Lab {
    /// Runs a statement that answers with one number per row; its SQLSTATE if it is refused.
    async fn ask(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<i64>, String> {
        self.done.push(format!("{} {sql} {params:?}", self.model.now));
        match self.client.query(sql, params).await {
            Ok(rows) => Ok(rows.iter().map(|row| row.try_get(0).unwrap_or(0)).collect()),
            Err(error) => {
                let code = error.code().unwrap_or_else(|| panic!("{sql}: {error}")).code().to_owned();
                *self.model.seen.entry(code.clone()).or_default() += 1;
                Err(code)
            }
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&self, answer: Result<T, String>, expected: Answer<T>) {
        assert_eq!(answer, expected.map_err(str::to_owned), "{}", self.done.join("\n"));
    }

    /// Half of all messages have none.
    fn some_key(&mut self) -> Option<&'static str> {
        self.random.random_bool(0.5).then(|| KEYS[self.random.random_range(0..KEYS.len())])
    }

    fn some_id(&mut self) -> i64 {
        let ids: Vec<i64> = self.model.rows.keys().copied().collect();
        ids.choose(&mut self.random).copied().unwrap_or(12345)
    }

    /// Mostly somebody's own claim; sometimes with a wrong owner or attempt, or of a message that the server has forgotten.
    fn some_claim(&mut self) -> Claim {
        let owners = [OWNERS[0], OWNERS[1], LONER];
        if !self.model.ghosts.is_empty() && self.random.random_bool(0.3) {
            let ghost = self.random.random_range(0..self.model.ghosts.len());
            return self.model.ghosts[ghost];
        }
        let claimed: Vec<(i64, Row)> =
            self.model.rows.iter().filter(|(_, row)| row.owner.is_some()).map(|(id, row)| (*id, row.clone())).collect();
        let Some((id, row)) = claimed.choose(&mut self.random) else {
            return Claim { id: self.some_id(), attempt: 1, owner: LONER, created_at: 0 };
        };
        let owner = owners.into_iter().find(|&owner| row.owner.as_deref() == Some(owner)).expect("one of them");
        let claim = Claim { id: *id, attempt: row.attempt, owner, created_at: row.created_at };
        match self.random.random_range(0..10) {
            0 => Claim { attempt: row.attempt - 1, ..claim },
            1 => Claim { owner: owners[self.random.random_range(0..3)], ..claim },
            _ => claim,
        }
    }

    async fn step(&mut self) {
        self.model.now += 1;
        self.tick().await;
        self.look_who_stands_behind_others().await;
        let target = TARGETS[self.random.random_range(0..2)];
        let owner = OWNERS[self.random.random_range(0..2)];
        match self.random.random_range(0..100) {
            0..14 => self.publish(target).await,
            14..36 => self.claim(target, owner).await,
            36..52 => self.settle().await,
            52..54 => {
                let claim = self.some_claim();
                let Claim { id, attempt, owner, created_at } = claim;
                let answer = self
                    .ask(
                        "select integration.extend($1, $2, $3, '5 s', $4)",
                        &[&id, &attempt, &owner, &time(created_at)],
                    )
                    .await;
                let expected = self.model.extend(claim, 5000);
                self.same(answer.map(drop), expected);
            }
            54..64 => {
                let register = "select integration.register($1, 'host', 1, 'app', 'v', '{}', $2)";
                self.ask(register, &[&owner, &LEASE]).await.unwrap();
                self.model.register(owner);
            }
            64..69 => {
                // Mostly somebody looks who is dead meanwhile.
                let (mut left, looks) = (self.random.random_range(1..9000), self.random.random_bool(0.7));
                while left > 0 {
                    let step = if looks { left.min(LEASE / 3) } else { left };
                    left -= step;
                    self.model.now += step;
                    self.tick().await;
                    if looks {
                        self.rescue().await;
                    }
                }
            }
            69..72 => {
                let expired = "update integration.data_staging set lease_until = integration.clock() - interval '1 s' where lease_until is not null and id = $1 returning id";
                let id = self.some_id();
                self.ask(expired, &[&id]).await.unwrap();
                let now = self.model.now;
                if let Some(row) = self.model.rows.get_mut(&id).filter(|row| row.lease_until.is_some()) {
                    row.lease_until = Some(now - 1000);
                }
            }
            72..77 => self.rescue().await,
            77..81 => {
                let answer = self.ask("select integration.promote($1)::bigint", &[&&TARGETS[..]]).await;
                let expected = self.model.promote(&TARGETS);
                self.same(answer, Ok(vec![expected]));
            }
            81..90 => self.edit().await,
            90..92 => {
                let id = if self.random.random_bool(0.1) { 12345 } else { self.some_id() };
                let answer = self.ask("select integration.redrive($1::bigint)", &[&id]).await;
                let expected = match self.model.rows.get(&id) {
                    None => Err("MQ004"),
                    Some(row) if !row.ended() => Err("MQ003"),
                    Some(_) => self.model.edit(id, "pending", None, false),
                };
                self.same(answer.map(drop), expected);
            }
            92..94 => {
                let id = self.some_id();
                self.ask("select * from integration.cancel(array[$1::bigint])", &[&id]).await.unwrap();
                if self.model.rows.get(&id).is_some_and(|row| !row.ended()) {
                    self.model.edit(id, "cancelled", None, false).unwrap();
                }
            }
            94..96 => {
                let paused = self.model.paused.contains(&target);
                let sql = if paused { "select integration.resume($1)" } else { "select integration.pause($1)" };
                self.ask(sql, &[&target]).await.unwrap();
                self.model.paused.retain(|other| *other != target);
                if !paused {
                    self.model.paused.push(target);
                }
            }
            96..98 => self.give_back(owner).await,
            98 => self.forget().await,
            _ => {
                let id = self.some_id();
                self.ask("delete from integration.data_staging where id = $1 returning id", &[&id]).await.unwrap();
                self.model.rows.remove(&id);
            }
        }
    }

    /// That is the database's choice, and no rule says when.
    async fn look_who_stands_behind_others(&mut self) {
        let behind = "select coalesce(array_agg(id), '{}') from integration.data_staging where behind_at is not null";
        let behind: Vec<i64> = self.client.query_one(behind, &[]).await.unwrap().get(0);
        for (id, row) in &mut self.model.rows {
            row.is_behind = behind.contains(id);
        }
        if !behind.is_empty() {
            *self.model.seen.entry("behind".to_owned()).or_default() += 1;
        }
    }

    async fn rescue(&mut self) {
        let full = self.random.random_bool(0.7);
        let answer = self.ask("select integration.rescue(1000, $1)::bigint", &[&full]).await;
        let expected = self.model.rescue(full);
        self.same(answer, Ok(vec![expected]));
    }

    async fn tick(&mut self) {
        let sql = "update public.test_clock set at = '2030-01-01 00:00:00 UTC'::timestamptz + $1 * interval '1 ms'";
        self.client.execute(sql, &[&(self.model.now as f64)]).await.unwrap();
    }

    async fn publish(&mut self, target: &'static str) {
        let priority = self.random.random_range(0..3);
        let delay = self.random.random_bool(0.3).then(|| self.random.random_range(0..3000i64));
        let key = self.random.random_bool(0.4).then(|| format!("key {}", self.random.random_range(0..6)));
        let max_retries = self.random.random_bool(0.2).then(|| self.random.random_range(0..3));
        let ordering_key = self.some_key();
        let taken = self.model.taken(key.as_deref());
        if self.random.random_bool(0.3) {
            let insert = "insert into integration.data_staging (source_app, target_app, record_type, data, priority, dedup_key, max_retries, ordering_key) \
                          values ('shop', $1, 'n', '{}', $2, $3, $4, $5) returning id";
            let answer = self.ask(insert, &[&target, &priority, &key, &max_retries, &ordering_key]).await;
            match (answer, taken) {
                (Err(code), Some(_)) => assert_eq!(code, "23505"),
                (Ok(ids), None) => {
                    self.model.published(ids[0], target, priority, None, (key.as_deref(), ordering_key), max_retries);
                }
                (answer, taken) => panic!("{answer:?} although the key's message is {taken:?}"),
            }
            return;
        }
        let call = "select integration.publish('shop', $1, 'n', '{}', $2, $3::bigint * interval '1 ms', p_dedup_key => $4, p_max_retries => $5, p_ordering_key => $6)";
        let ids = self.ask(call, &[&target, &priority, &delay, &key, &max_retries, &ordering_key]).await.unwrap();
        match taken {
            Some(id) => assert_eq!(ids, [id]),
            None => self.model.published(ids[0], target, priority, delay, (key.as_deref(), ordering_key), max_retries),
        }
    }

    async fn claim(&mut self, target: &'static str, owner: &'static str) {
        let waiting =
            self.model.rows.values().any(|row| row.target == target && row.status == "pending" && row.crash_count > 0);
        let suspect = self.random.random_bool(if waiting { 0.6 } else { 0.1 });
        let alone = self.random.random_bool(0.25);
        let (owner, lease) = if alone { (LONER, Some(5000i64)) } else { (owner, None) };
        let limit = self.random.random_range(1..5);
        let takes = match lease {
            Some(lease) if !suspect => Ok(self.model.claim_by_lease(target, owner, limit as usize, lease)),
            _ => self.model.claim(target, owner, limit as usize, lease, suspect),
        };
        let answer = if suspect {
            let sql = "select id from integration.claim_suspect($1, $2, null, $3::bigint * interval '1 ms')";
            self.ask(sql, &[&target, &owner, &lease]).await
        } else {
            let sql = "select id from integration.claim($1, $2, $3, null, $4::bigint * interval '1 ms')";
            self.ask(sql, &[&target, &owner, &limit, &lease]).await
        };
        match (answer, takes) {
            (Ok(ids), Ok(takes)) => {
                if let Some(fault) = self.model.take(&takes, owner, lease, &ids) {
                    panic!("{fault}\n{}", self.done.join("\n"));
                }
            }
            (answer, takes) => self.same(answer.map(drop), takes.map(drop)),
        }
    }

    async fn settle(&mut self) {
        let claim = self.some_claim();
        let Claim { id, attempt, owner, created_at } = claim;
        let created_at = time(created_at);
        let outcome = ["complete", "complete", "retry", "reject", "snooze", "release"][self.random.random_range(0..6)];
        let delay = (outcome == "snooze" || self.random.random_bool(0.5)).then(|| self.random.random_range(0..5000i64));
        let answer = if outcome == "complete" {
            self.ask(
                "select * from integration.complete_many($1::text, array[$2::bigint], array[$3::integer], array[$4::timestamptz])",
                &[&owner, &id, &attempt, &created_at],
            )
            .await
        } else {
            let sql = "select id from integration.settle($1, array[$2::bigint], array[$3::integer], array[$6::timestamptz], array[$4], array['why'], array[$5::bigint])";
            self.ask(sql, &[&owner, &id, &attempt, &outcome, &delay, &created_at]).await
        };
        let settled = self.model.settle(claim, outcome, delay);
        self.same(answer, Ok(settled.map(|_| id).into_iter().collect()));
    }

    async fn edit(&mut self) {
        let (id, status) = (self.some_id(), STATUSES[self.random.random_range(0..6)]);
        if self.random.random_bool(0.1) {
            let lower =
                "update integration.data_staging set attempt = attempt - 1 where attempt > 0 and id = $1 returning id";
            let expected = match self.model.rows.get(&id) {
                Some(row) if row.attempt > 0 => Err("MQ003"),
                _ => Ok(Vec::new()),
            };
            let answer = self.ask(lower, &[&id]).await;
            return self.same(answer, expected);
        }
        let due = (status == "scheduled").then_some(self.model.now + 1000);
        let sql = "update integration.data_staging set status = $2, owner = case when not $3 then owner end, \
                   available_at = case when $2 = 'scheduled' then integration.clock() + interval '1 s' else available_at end \
                   where id = $1 returning 0::bigint";
        let disown = status != "processing" && self.random.random_bool(0.3);
        let answer = self.ask(sql, &[&id, &status, &disown]).await;
        let expected = self.model.edit(id, status, due, disown);
        self.same(answer.map(drop), expected);
    }

    async fn give_back(&mut self, owner: &'static str) {
        if self.random.random_bool(0.3) {
            let answer = self.ask("select integration.deregister($1)::bigint", &[&owner]).await;
            let expected = self.model.give_back(owner, &[]);
            self.model.owners.remove(owner);
            return self.same(answer, Ok(vec![expected]));
        }
        let known: Vec<Claim> = (0..3).map(|_| self.some_claim()).collect();
        let (ids, attempts): (Vec<i64>, Vec<i32>) = known.iter().map(|claim| (claim.id, claim.attempt)).unzip();
        let created: Vec<SystemTime> = known.iter().map(|claim| time(claim.created_at)).collect();
        let give_back = "select integration.give_back($1, $2, $3, $4)::bigint";
        let answer = self.ask(give_back, &[&owner, &ids, &attempts, &created]).await;
        let expected = self.model.give_back(owner, &known);
        self.same(answer, Ok(vec![expected]));
    }

    /// What an asynchronous failover leaves: the last publishes were never there, and their ids come again.
    async fn forget(&mut self) {
        let last = self.model.rows.keys().rev().nth(self.random.random_range(1..6)).copied().unwrap_or(0);
        if last == 0 {
            return;
        }
        let forget = format!(
            "delete from integration.data_staging where id > {last}; delete from integration.audit_log where staging_id > {last};
             delete from integration.dedup_keys where staging_id > {last};
             select setval(pg_get_serial_sequence('integration.data_staging', 'id'), {last})"
        );
        self.done.push(format!("{} the server forgets what came after {last}", self.model.now));
        self.client.batch_execute(&forget).await.unwrap();
        self.model.forget_after(last, &[OWNERS[0], OWNERS[1], LONER]);
    }
}
