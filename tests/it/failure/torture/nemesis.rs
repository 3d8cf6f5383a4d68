//! What goes wrong, one thing after the other: every kind once in a random order, and again until time is up.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use doorbell_server::Shutdown;
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio_postgres::{Client, NoTls};

use super::{
    ledger::Ledger,
    pace::{look_again, pause},
    worker::Worker,
};
use crate::{
    failover::pair::Pair,
    proxy::{Cut, Proxy, Weather},
};

const KINDS: [&str; 23] = [
    "consumer killed",
    "consumer killed",
    "consumer frozen",
    "sessions terminated",
    "listeners terminated",
    "server restarted",
    "server killed",
    "server away",
    "server away",
    "server paused",
    "failed over",
    "network slow",
    "network stalled",
    "network deaf",
    "network reset",
    "reply lost",
    "edited by hand",
    "horizon pinned",
    "rows locked",
    "table locked",
    "read-only spell",
    "rule added",
    "stranger",
];

/// What a run without would prove little.
const FIRST: [&str; 3] = ["consumer killed", "server away", "failed over"];

/// The process that has a message whose handler has begun just now and takes long.
const BUSY: &str = "select substring(owner from '-([0-9]+)-[0-9a-f]+$') from integration.data_staging
    where status = 'processing' and owner is not null and data->>'intent' = 'slow' order by updated_at desc limit 1";
/// How often it is looked for.
const LOOKS_MAX: usize = 100;

/// Where replies are lost.
const STATEMENTS: [&str; 10] = [
    "integration.publish(",
    "integration.claim(",
    "integration.claim_suspect(",
    "integration.complete_many(",
    "integration.settle(",
    "COMMIT",
    "integration.beat(",
    "integration.was_settled(",
    "integration.give_back(",
    "integration.promote(",
];

/// Legal things that operators do to a message in the middle of everything.
const HAND_EDITS: [&str; 5] = [
    "update integration.data_staging set status = 'pending' where id = any (array(select id from integration.data_staging where target_app in ('plain', 'tx') and status = 'processing' order by random() limit 2 for update skip locked))",
    "update integration.data_staging set status = 'pending' where id = any (array(select id from integration.data_staging where target_app in ('plain', 'tx') and status = 'scheduled' order by random() limit 2 for update skip locked))",
    "select integration.cancel(array(select id from integration.data_staging where target_app in ('plain', 'tx') and status in ('pending', 'scheduled', 'processing') order by random() limit 1))",
    "select integration.redrive_many(array(select id from integration.data_staging where target_app in ('plain', 'tx') and status = 'failed' order by random() limit 2))",
    "select integration.redrive_many(array(select id from integration.data_staging where target_app in ('plain', 'tx') and status in ('completed', 'cancelled') order by random() limit 2))",
];

pub(super) struct Nemesis {
    pub(super) pair: Pair,
    pub(super) proxy: Proxy,
    /// Around the proxy, to whichever is the primary.
    pub(super) url: String,
    pub(super) ledger: Ledger,
    pub(super) workers: Vec<Worker>,
    pub(super) log: PathBuf,
    pub(super) done: BTreeMap<&'static str, usize>,
    /// Consumer processes that really died.
    pub(super) killed: Vec<u32>,
    /// Those that were frozen for longer than their lease.
    pub(super) frozen: Vec<u32>,
    pub(super) random: StdRng,
}

impl Nemesis {
    pub(super) fn new(pair: Pair, proxy: Proxy, ledger: Ledger, log: PathBuf, seed: u64) -> Self {
        let workers = (0..3).map(|_| Worker::start(&proxy.url, &log)).collect();
        let (url, random) = (pair.url(), StdRng::seed_from_u64(seed));
        let (done, killed, frozen) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { pair, proxy, url, ledger, workers, log, done, killed, frozen, random }
    }

    /// The safety phase.
    pub(super) async fn rage(&mut self, length: Duration) {
        let end = Instant::now() + length;
        let mut deck = Vec::new();
        let mut thaw = Instant::now();
        while Instant::now() < end || FIRST.iter().any(|kind| !self.done.contains_key(kind)) {
            if deck.is_empty() {
                deck = KINDS.to_vec();
                deck.shuffle(&mut self.random);
                // These come first, so that they happen in the shortest run on the slowest machine.
                deck.sort_by_key(|kind| FIRST.contains(kind));
            }
            let kind = deck.pop().expect("just filled");
            self.strike(kind).await;
            *self.done.entry(kind).or_default() += 1;
            pause(&mut self.random, 100, 500).await;
            if kind == "consumer frozen" {
                thaw = Instant::now() + super::worker::LEASE + Duration::from_millis(1500);
            }
            if Instant::now() >= thaw {
                self.thaw();
            }
        }
    }

    /// Everything is put right; only what is in the database can still be wrong.
    pub(super) async fn heal(&mut self) {
        self.pair.primary.resume();
        self.pair.primary.start_again().await.unwrap();
        self.proxy.mend();
        self.proxy.set(Weather::default());
        self.mend().await;
        self.thaw();
    }

    fn thaw(&mut self) {
        for worker in self.workers.iter_mut().filter(|worker| worker.stopped) {
            worker.signal(Signal::SIGCONT);
        }
    }

    async fn strike(&mut self, kind: &'static str) {
        match kind {
            "consumer killed" => {
                let which = self.busy().await.unwrap_or_else(|| self.random.random_range(0..self.workers.len()));
                self.killed.push(self.workers[which].kill());
                pause(&mut self.random, 0, 500).await;
                self.workers[which] = Worker::start(&self.proxy.url, &self.log);
            }
            "consumer frozen" => {
                let which = self.random.random_range(0..self.workers.len());
                self.frozen.push(self.workers[which].signal(Signal::SIGSTOP));
            }
            "sessions terminated" => {
                self.sql(
                    "select pg_terminate_backend(pid) from (select pid from pg_stat_activity \
                          where application_name like 'doorbell%' order by random() limit 4) s",
                )
                .await;
            }
            "listeners terminated" => {
                self.sql("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid = integration.lock_class()::oid").await;
            }
            "server restarted" => self.pair.primary.restart(Shutdown::Immediate).await.unwrap(),
            "server killed" => {
                self.pair.primary.kill().await.unwrap();
                pause(&mut self.random, 100, 1000).await;
                self.pair.primary.start_again().await.unwrap();
            }
            // Longer than the lease, and nobody dies.
            "server away" => {
                self.pair.primary.kill().await.unwrap();
                let lease = super::worker::LEASE.as_millis() as u64;
                pause(&mut self.random, lease + 500, lease + 2000).await;
                self.pair.primary.start_again().await.unwrap();
            }
            "server paused" => {
                self.pair.primary.pause();
                pause(&mut self.random, 500, 4000).await;
                self.pair.primary.resume();
            }
            // The new primary never heard of the last that the old one has acknowledged.
            "failed over" => {
                self.ledger.standby_lags(true);
                self.pair.stop_replicating().await;
                pause(&mut self.random, 200, 1500).await;
                self.pair.fail_over().await;
                let kept = self.pair.client_of_standby().await.query("select data->>'op' from chk.msg", &[]).await;
                self.ledger.kept(kept.unwrap().iter().map(|row| row.get(0)));
                self.proxy.lead_to(&self.pair.standby.connection_string("postgres"));
                self.proxy.reset();
                self.ledger.standby_lags(false);
                // That a rule was taken back, it may not know either.
                self.mend().await;
                pause(&mut self.random, 0, 2000).await;
                self.pair.turn_round().await;
            }
            "network slow" => {
                let delay = Duration::from_millis(self.random.random_range(5..100));
                self.weather(Weather { delay, ..Default::default() }, 500, 2000).await;
            }
            "network stalled" => {
                let (stall_up, stall_down) =
                    [(true, true), (true, false), (false, true)][self.random.random_range(0..3)];
                self.weather(Weather { stall_up, stall_down, ..Default::default() }, 500, 4000).await;
            }
            "network deaf" => self.weather(Weather::DEAF, 500, 2500).await,
            "network reset" => self.proxy.reset(),
            "reply lost" => {
                for _ in 0..4 {
                    let statement = STATEMENTS[self.random.random_range(0..STATEMENTS.len())];
                    let unsent = self.random.random_bool(0.3);
                    self.proxy.cut(if unsent { Cut::unsent(statement) } else { Cut::unanswered(statement) });
                    pause(&mut self.random, 100, 300).await;
                }
                self.proxy.mend();
            }
            "edited by hand" => {
                for edit in HAND_EDITS {
                    self.sql(edit).await;
                }
            }
            "horizon pinned" => {
                let url = self.url.clone();
                let mut random = StdRng::seed_from_u64(self.random.random());
                tokio::spawn(async move {
                    let Some(client) = connect(&url).await else { return };
                    let _ = client
                        .batch_execute(
                            "begin isolation level repeatable read; select count(*) from integration.data_staging",
                        )
                        .await;
                    pause(&mut random, 2000, 6000).await;
                });
            }
            people => self.meddle(people).await,
        }
    }

    /// A consumer process that has something to lose.
    async fn busy(&self) -> Option<usize> {
        let client = connect(&self.url).await?;
        for _ in 0..LOOKS_MAX {
            let row = client.query_opt(BUSY, &[]).await.ok()?;
            let busy = row.and_then(|row| row.get::<_, Option<String>>(0)?.parse().ok());
            let which = self.workers.iter().position(|worker| Some(worker.id()) == busy && !worker.stopped);
            if which.is_some() {
                return which;
            }
            look_again().await;
        }
        None
    }

    async fn weather(&mut self, weather: Weather, from_ms: u64, to_ms: u64) {
        self.proxy.set(weather);
        pause(&mut self.random, from_ms, to_ms).await;
        self.proxy.set(Weather::default());
    }

    /// Runs a statement if the server lets it; a legal edit may lose a race against a consumer.
    async fn sql(&self, statement: &str) {
        if let Some(client) = connect(&self.url).await
            && let Err(error) = client.batch_execute(statement).await
            && let Some(refusal) = error.as_db_error()
        {
            let code = refusal.code().code();
            assert!(code.starts_with("57P") || code == "40P01" || code == "MQ003", "{statement}: {refusal:?}");
        }
    }
}

pub(super) async fn connect(url: &str) -> Option<Client> {
    // Read-only is what the database may be, not who puts that right.
    let url = format!("{url} application_name=operator options='-c default_transaction_read_only=off'");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}
