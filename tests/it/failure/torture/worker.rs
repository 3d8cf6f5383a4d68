//! Consumers as processes of their own, which can be killed and stopped like any program: this test binary, started again.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorbell::{Broker, BrokerConfig, Consumer, ConsumerConfig, Delivery, HandlerResult, Outcome, Settings};
use futures::FutureExt;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;

use super::pace;

/// Set in consumer processes: the database, and the file to log to.
const URL: &str = "DOORBELL_TEST_TORTURE_URL";
const LOG: &str = "DOORBELL_TEST_TORTURE_LOG";

pub(super) const LEASE: Duration = Duration::from_secs(3);

/// A running consumer process; dropping it kills it.
pub(super) struct Worker {
    process: Child,
    pub(super) stopped: bool,
}

impl Worker {
    /// `log` gets a line for each run, and for each warning.
    pub(super) fn start(url: &str, log: &PathBuf) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command
            .args(["--exact", "failure::torture::worker::consumer_process", "--nocapture"])
            .env(URL, url)
            .env(LOG, log);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program starts again");
        Self { process, stopped: false }
    }

    /// Which process it is.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns which process it is.
    pub(super) fn signal(&mut self, signal: Signal) -> u32 {
        let _ = kill(Pid::from_raw(self.process.id() as i32), signal);
        self.stopped = signal == Signal::SIGSTOP;
        self.process.id()
    }

    /// Which process it was.
    pub(super) fn kill(&mut self) -> u32 {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process.id()
    }

    /// Asks it to end, waits until it has, and says whether it ended well.
    pub(super) async fn end(mut self) -> bool {
        drop(self.process.stdin.take());
        tokio::task::spawn_blocking(move || self.process.wait().is_ok_and(|status| status.success())).await.unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Deserialize)]
struct Body {
    op: String,
    intent: String,
}

/// One line per event, written at once: what was not written when the process was killed did not happen.
struct Log(File);

impl Log {
    fn line(&self, line: &str) {
        let _ = (&self.0).write_all(format!("{line}\n").as_bytes());
    }

    /// A handler runs, until what is returned is dropped, also because it was cancelled.
    fn run(self: &Arc<Self>, body: &Body, delivery: &Delivery) -> Running {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let (id, attempt, found) = (delivery.id, delivery.attempt, delivery.found);
        let run = format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        self.line(&format!("run|{id}|{attempt}|{}|{found:?}|{}|{run}", body.op, std::process::id()));
        Running { log: self.clone(), run }
    }
}

struct Running {
    log: Arc<Log>,
    run: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.log.line(&format!("end|{}", self.run));
    }
}

/// Not a test of its own: what the processes started by [`Worker::start`] do.
#[expect(clippy::disallowed_methods, reason = "its log is read beside those of others on this machine")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumer_process() {
    let (Ok(url), Ok(log)) = (std::env::var(URL), std::env::var(LOG)) else { return };
    let log = Arc::new(Log(OpenOptions::new().append(true).create(true).open(log).unwrap()));
    let warnings = log.clone();
    crate::logs::everywhere(move |line| {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        warnings.line(&format!("log|{}|{:.3}|{line}", std::process::id(), since_1970.as_secs_f64()));
    });
    let told_to_stop = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let config = BrokerConfig {
        lease: LEASE,
        beat: Duration::from_millis(300),
        connections_max: 8,
        connection_wait: Duration::from_secs(5),
        ..Default::default()
    };
    let consuming = async {
        loop {
            if let Ok(broker) = Broker::with_config(Settings::parse(&url).unwrap(), config.clone()).await
                && let Ok(plain) = plain(&broker, &log).await
                && let Ok(tx) = transactional(&broker, &log).await
                && let Ok(answering) = super::routes::answering(&broker).await
                && let Ok(hearing) = super::routes::hearing(&broker).await
            {
                return (broker, [plain, tx, answering, hearing]);
            }
            pace::look_again().await;
        }
    };
    let (broker, consumers) = consuming.await;
    let _ = told_to_stop.await;
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
    broker.close().await;
}

/// What the publisher wants to happen.
async fn intended(body: &Body, delivery: &Delivery) -> HandlerResult {
    match body.intent.as_str() {
        "fail" => Err("always fails".into()),
        "reject" => Ok(Outcome::reject("as told")),
        "retry" if delivery.retry_count == 0 => Err("the first try fails".into()),
        "snooze" if delivery.attempt == 1 => Ok(Outcome::snooze(Duration::from_millis(200))),
        "slow" => {
            pace::be_slow().await;
            Ok(Outcome::Done)
        }
        _ => Ok(Outcome::Done),
    }
}

async fn plain(broker: &Broker, log: &Arc<Log>) -> doorbell::Result<Consumer> {
    let log = log.clone();
    let consumer = broker.consumer("plain").config(ConsumerConfig {
        concurrency: 4,
        sweep: Some(Duration::from_secs(1)),
        ..ConsumerConfig::default()
    });
    let consumer = consumer.on("op", move |body: Body, delivery| {
        let log = log.clone();
        async move {
            let _running = log.run(&body, &delivery);
            intended(&body, &delivery).await
        }
    });
    consumer.start().await
}

async fn transactional(broker: &Broker, log: &Arc<Log>) -> doorbell::Result<Consumer> {
    let (log, config) = (log.clone(), ConsumerConfig::default());
    // Half of the processes hold messages for longer, and so do more often.
    let hold = if std::process::id().is_multiple_of(2) { Some(Duration::from_secs(1)) } else { config.hold };
    let config = ConsumerConfig { hold, concurrency: 4, sweep: Some(Duration::from_secs(1)), ..config };
    let consumer = broker.consumer("tx").config(config);
    let consumer = consumer.on_tx("op", move |body: Body, delivery, tx| {
        let log = log.clone();
        async move {
            let _running = log.run(&body, &delivery);
            let insert = "insert into chk.effect (op, staging_id, attempt, consumer) values ($1, $2, $3, $4)";
            let consumer = std::process::id().to_string();
            tx.execute(insert, &[&body.op, &delivery.id, &delivery.attempt, &consumer]).await?;
            intended(&body, &delivery).await
        }
        .boxed()
    });
    consumer.start().await
}
