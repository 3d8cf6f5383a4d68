//! The main path against its floors, on one durable private server, in one run: `cargo bench --bench path`.
//!
//! Absolute numbers mean little on a shared machine; read the ratios that are printed at the end. Floors: the same rows
//! by raw SQL with our triggers disabled (publish, drain), and a raw NOTIFY round trip plus a raw claim (wake-up).

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use doorbell::{
    Broker, Message, Outcome,
    server::{EphemeralOptions, Server},
};
use futures::StreamExt;
use tokio::{
    runtime::Runtime,
    sync::{Notify, mpsc},
};
use tokio_postgres::{AsyncMessage, Client, NoTls};

const DRAIN: i64 = 20_000;
const BATCH: i64 = 1000;
const RAW_INSERT: &str = "insert into integration.data_staging (source_app, target_app, record_type, data, headers, ordering_key, max_retries) \
    values ($1, $2, $3, $4, $5, $6, $7) returning id";
const RAW_CLAIM: &str = "with picked as materialized (select id from integration.data_staging \
    where target_app = 'billing' and status = 'pending' order by priority desc, created_at, id limit $1 for no key update skip locked) \
    update integration.data_staging d set status = 'processing', attempt = attempt + 1, claimed_by = 'raw', updated_at = clock_timestamp() \
    where id = any (array(select id from picked)) returning id, attempt, source_app, record_type, data, headers";
const RAW_COMPLETE: &str = "update integration.data_staging set status = 'completed', claimed_by = null, processed_at = clock_timestamp(), \
    updated_at = clock_timestamp() where id = any ($1) and claimed_by = 'raw' and status = 'processing'";

struct Bench {
    runtime: Runtime,
    url: String,
    broker: Broker,
    client: Client,
    /// What was measured, for the ratios: name and seconds per element.
    figures: Vec<(String, f64)>,
    _server: Server,
}

impl Bench {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (server, broker, client, url) = runtime.block_on(async {
            let settings = [("shared_buffers", "512MB"), ("max_wal_size", "8GB"), ("checkpoint_timeout", "30min")];
            let settings: Vec<_> =
                settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            println!("durable private server, settings {settings:?}");
            let server = Server::ephemeral(EphemeralOptions { durable: true, settings, ..Default::default() })
                .await
                .expect("a server");
            println!("PostgreSQL {}", server.version());
            let url = server.connection_string("postgres");
            let broker = Broker::connect(&url).await.expect("a broker");
            broker.migrate().await.expect("a schema");
            let client = connect(&url).await;
            (server, broker, client, url)
        });
        Self { runtime, url, broker, client, figures: Vec::new(), _server: server }
    }

    /// Measures `elements` per call with criterion and keeps the best of its samples.
    fn measure(
        &mut self,
        criterion: &mut Criterion,
        name: &str,
        elements: u64,
        mut once: impl FnMut(&Self) -> Duration,
    ) {
        let mut best = f64::INFINITY;
        let mut group = criterion.benchmark_group("path");
        group.sample_size(10).throughput(Throughput::Elements(elements));
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(3));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let took = once(self);
                    best = best.min(took.as_secs_f64() / elements as f64);
                    total += took;
                }
                total
            });
        });
        group.finish();
        self.figures.push((name.to_owned(), best));
    }

    fn triggers(&self, on: bool) {
        let verb = if on { "enable" } else { "disable" };
        self.execute(&format!("alter table integration.data_staging {verb} trigger user"));
    }

    fn execute(&self, sql: &str) {
        self.runtime.block_on(self.client.batch_execute(sql)).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    fn fill(&self) {
        self.execute("truncate integration.data_staging, integration.audit_log");
        self.execute(&format!(
            "insert into integration.data_staging (source_app, target_app, record_type, data) \
             select 'shop', 'billing', 'order', jsonb_build_object('n', n, 'pad', repeat('x', 200)) from generate_series(1, {DRAIN}) n"
        ));
        self.execute("vacuum analyze integration.data_staging");
        self.execute("checkpoint");
    }

    fn raw_drain(&self) -> Duration {
        self.fill();
        self.triggers(false);
        let took = self.runtime.block_on(async {
            let claim = self.client.prepare(RAW_CLAIM).await.expect("claim");
            let complete = self.client.prepare(RAW_COMPLETE).await.expect("complete");
            let began = Instant::now();
            loop {
                let rows = self.client.query(&claim, &[&BATCH]).await.expect("claim");
                let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
                if ids.is_empty() {
                    return began.elapsed();
                }
                self.client.execute(&complete, &[&ids]).await.expect("complete");
            }
        });
        self.triggers(true);
        took
    }

    fn drain(&self) -> Duration {
        self.fill();
        self.runtime.block_on(async {
            let (left, done) = (Arc::new(AtomicI64::new(DRAIN)), Arc::new(Notify::new()));
            let (count, last) = (left.clone(), done.clone());
            let began = Instant::now();
            let consumer = self.broker.consumer("billing").concurrency(BATCH as usize).fallback(move |_| {
                if count.fetch_sub(1, Ordering::Relaxed) == 1 {
                    last.notify_one();
                }
                async { Ok(Outcome::Done) }
            });
            let consumer = consumer.start().await.expect("a consumer");
            done.notified().await;
            consumer.shutdown().await.expect("drained");
            began.elapsed()
        })
    }

    /// From the publisher's acknowledgement to the handler, on a parked consumer; and the raw way: from the
    /// acknowledgement of an INSERT with a NOTIFY to the rows of a raw claim. Both sorted.
    fn wakes(&self, samples: usize) -> (Vec<f64>, Vec<f64>) {
        self.execute("truncate integration.data_staging, integration.audit_log");
        self.runtime.block_on(async {
            let (tell, mut told) = mpsc::unbounded_channel();
            let consumer = self.broker.consumer("billing").sweep(None).fallback(move |_| {
                let _ = tell.send(Instant::now());
                async { Ok(Outcome::Done) }
            });
            let consumer = consumer.start().await.expect("a consumer");
            let (producer, message) = (self.broker.producer("shop"), Message::new("billing", "order", &1).expect("JSON"));
            let mut ours = Vec::with_capacity(samples);
            for _ in 0..samples {
                tokio::time::sleep(Duration::from_millis(5)).await;
                producer.publish(&message).await.expect("published");
                let acknowledged = Instant::now();
                let entered = told.recv().await.expect("handled");
                ours.push(entered.saturating_duration_since(acknowledged).as_secs_f64());
            }
            consumer.shutdown().await.expect("drained");
            let (listener, mut connection) = tokio_postgres::connect(&self.url, NoTls).await.expect("a listener");
            let (ring, mut rung) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                let mut messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx)).boxed();
                while let Some(Ok(message)) = messages.next().await {
                    if matches!(message, AsyncMessage::Notification(_)) {
                        let _ = ring.send(());
                    }
                }
            });
            listener.batch_execute("listen raw").await.expect("listening");
            let claimer = connect(&self.url).await;
            let claim = claimer.prepare(RAW_CLAIM).await.expect("claim");
            let (go, mut acknowledgements) = mpsc::unbounded_channel::<Instant>();
            let raw = tokio::spawn(async move {
                let mut raw = Vec::with_capacity(samples);
                while rung.recv().await.is_some() {
                    claimer.query(&claim, &[&16i64]).await.expect("claim");
                    let claimed = Instant::now();
                    let Some(acknowledged) = acknowledgements.recv().await else { break };
                    raw.push(claimed.saturating_duration_since(acknowledged).as_secs_f64());
                    if raw.len() == samples {
                        break;
                    }
                }
                raw
            });
            for _ in 0..samples {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let sql = "insert into integration.data_staging (source_app, target_app, record_type, data) values ('shop', 'billing', 'order', '1'); notify raw";
                self.client.batch_execute(sql).await.expect("published");
                let _ = go.send(Instant::now());
            }
            let mut raw = raw.await.expect("measured");
            ours.sort_by(f64::total_cmp);
            raw.sort_by(f64::total_cmp);
            (ours, raw)
        })
    }

    fn figure(&self, name: &str) -> f64 {
        self.figures.iter().find(|(known, _)| known == name).map_or(f64::NAN, |(_, seconds)| *seconds)
    }

    fn ratio(&self, name: &str, floor: &str) {
        let (ours, floor_seconds) = (self.figure(name), self.figure(floor));
        println!(
            "{name:<24} {:>9.0}/s   floor {floor:<20} {:>9.0}/s   ratio {:.2}",
            1.0 / ours,
            1.0 / floor_seconds,
            floor_seconds / ours
        );
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut bench = Bench::new();
    let message =
        Message::new("billing", "order", &serde_json::json!({ "n": 1, "pad": "x".repeat(200) })).expect("JSON");
    let many: Vec<Message> = (0..BATCH).map(|_| message.clone()).collect();
    let payload = serde_json::json!({ "n": 1, "pad": "x".repeat(200) });

    let insert = bench.runtime.block_on(bench.client.prepare(RAW_INSERT)).expect("insert");
    bench.triggers(false);
    bench.measure(&mut criterion, "raw insert", 1, |bench| {
        let began = Instant::now();
        let (headers, key, retries): (Option<serde_json::Value>, Option<&str>, Option<i32>) = (None, None, None);
        bench
            .runtime
            .block_on(
                bench.client.query_one(&insert, &[&"shop", &"billing", &"order", &payload, &headers, &key, &retries]),
            )
            .expect("inserted");
        began.elapsed()
    });
    bench.triggers(true);
    let producer = bench.broker.producer("shop");
    bench.measure(&mut criterion, "publish", 1, |bench| {
        let began = Instant::now();
        bench.runtime.block_on(producer.publish(&message)).expect("published");
        began.elapsed()
    });
    bench.measure(&mut criterion, "publish_many 1000", BATCH as u64, |bench| {
        let began = Instant::now();
        bench.runtime.block_on(producer.publish_many(&many)).expect("published");
        began.elapsed()
    });
    let rows = (0..BATCH).map(|n| format!("{n}\tshop\tbilling\torder\t{payload}\t0\n")).collect::<String>();
    bench.triggers(false);
    bench.measure(&mut criterion, "raw copy 1000", BATCH as u64, |bench| {
        bench.execute("truncate integration.data_staging");
        let began = Instant::now();
        bench.runtime.block_on(async {
            let sql =
                "copy integration.data_staging (id, source_app, target_app, record_type, data, priority) from stdin";
            let mut sink = std::pin::pin!(bench.client.copy_in::<_, bytes::Bytes>(sql).await.expect("copy"));
            futures::SinkExt::send(&mut sink, rows.clone().into()).await.expect("sent");
            sink.as_mut().finish().await.expect("copied");
        });
        began.elapsed()
    });
    bench.triggers(true);
    bench.measure(&mut criterion, "raw drain", DRAIN as u64, Bench::raw_drain);
    bench.measure(&mut criterion, "drain", DRAIN as u64, Bench::drain);
    // What trust costs: the same drain with more and less of the audit log, and without the guard of hand edits.
    bench.execute("select integration.set_audit_level('all')");
    bench.measure(&mut criterion, "drain, audit all", DRAIN as u64, Bench::drain);
    bench.execute("select integration.set_audit_level('off')");
    bench.measure(&mut criterion, "drain, audit off", DRAIN as u64, Bench::drain);
    bench.execute("drop trigger data_staging_hand_edit on integration.data_staging");
    bench.measure(&mut criterion, "drain, off, no guard", DRAIN as u64, Bench::drain);
    bench.execute("select integration.set_audit_level('outcomes')");
    let (ours, raw) = bench.wakes(300);

    println!("\nbest samples of this run; ratio 1.00 is the floor");
    bench.ratio("publish", "raw insert");
    bench.ratio("publish_many 1000", "raw copy 1000");
    bench.ratio("drain", "raw drain");
    bench.ratio("drain, audit all", "drain, audit off");
    bench.ratio("drain", "drain, audit off");
    bench.ratio("drain, audit off", "drain, off, no guard");
    let at = |sorted: &[f64], share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize] * 1000.0;
    println!(
        "wake-up, acknowledged -> handler: p50 {:.3} ms, p99 {:.3} ms   floor (raw NOTIFY + raw claim): p50 {:.3} ms, p99 {:.3} ms   ratio {:.2}",
        at(&ours, 0.5),
        at(&ours, 0.99),
        at(&raw, 0.5),
        at(&raw, 0.99),
        at(&ours, 0.5) / at(&raw, 0.5),
    );
    criterion.final_summary();
}
