//! The measuring program once more, as a consumer process of its own.

use std::{
    io::{Write, stdout},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use doorbell::{Broker, BrokerConfig, ConsumerConfig, Settings};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, stdin},
    process::{Child, ChildStdout, Command},
    time::sleep,
};

use crate::{Lab, Result, TARGET, ours::Handling};

/// The hidden command by which the measuring program is started once more; its answer must be [`consume`].
pub const COMMAND: &str = "bench-consumer";

/// Not an argument: other users of the machine can see command lines.
pub const DATABASE_VARIABLE: &str = "DOORBELL_DATABASE_URL";

/// Enough to claim, settle and park at once.
const CONNECTIONS_MAX: usize = 3;

/// Handlers of one process of a fleet.
pub const CONCURRENCY: usize = 100;

/// How often a process looks whether it has something to say.
const LOOK: Duration = Duration::from_millis(10);

const CLOCK_TICKS: f64 = 100.0;

/// What a process says of itself.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct SelfReport {
    /// Memory that is in use, before and after its consumers started.
    pub bytes_before: f64,
    pub bytes: f64,
    /// Processor time so far.
    pub cpu_s: f64,
    /// Messages so far.
    pub handled: u64,
}

impl SelfReport {
    /// By the process's own files; zeroes where there are none (only Linux has them).
    fn now(bytes_before: f64, handled: u64) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
        // After the name in parentheses: state is the third field, utime and stime are the 14th and 15th.
        let stat = read("/proc/self/stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at - 3).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
        Self { bytes_before, bytes: kib * 1024.0, cpu_s: (ticks(14) + ticks(15)) / CLOCK_TICKS, handled }
    }
}

/// A consumer process, as its parent has it. It ends when this is dropped.
pub struct ConsumerProcess {
    child: Child,
    says: Lines<BufReader<ChildStdout>>,
}

impl ConsumerProcess {
    /// Starts so many consumers in a process; returns when they wait for messages, with what the process says of itself.
    pub async fn start(lab: &Lab, consumers: usize) -> Result<(Self, SelfReport)> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(COMMAND)
            .arg(consumers.to_string())
            .env(DATABASE_VARIABLE, &lab.url)
            // Its lifeline: it ends when we do, however we end.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("a child without an output")?;
        let mut process = Self { child, says: BufReader::new(stdout).lines() };
        let report = process.report().await?;
        Ok((process, report))
    }

    /// What it says next: when it is ready, whenever it has handled more, and once a second.
    pub async fn report(&mut self) -> Result<SelfReport> {
        match self.says.next_line().await? {
            Some(line) => Ok(serde_json::from_str(&line)?),
            None => Err(format!("a consumer process ended with {}", self.child.wait().await?).into()),
        }
    }

    /// Ends it in an orderly way and waits for it.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        while self.says.next_line().await?.is_some() {}
        self.child.wait().await?;
        Ok(())
    }
}

/// The other side: consumes in this process and says how it goes, a line of JSON at a time, until `told_to_stop` or the
/// parent is gone.
///
/// One consumer is a consumer of the benchmarks' target; more are as many idle ones, each with a target of its own.
///
/// # Errors
/// Those of connecting and consuming, and that stdout is closed.
pub async fn consume(url: &str, consumers: usize, told_to_stop: impl Future<Output = ()>) -> Result<()> {
    let config = BrokerConfig { connections_max: CONNECTIONS_MAX, ..BrokerConfig::default() };
    let broker = Broker::with_config(Settings::parse(url)?, config).await?;
    let before = SelfReport::now(0.0, 0).bytes;
    let mut started = Vec::new();
    let handled = Arc::new(AtomicU64::new(0));
    if consumers == 1 {
        let handled = handled.clone();
        let config = ConsumerConfig { concurrency: CONCURRENCY, ..Handling::Leased.config() };
        let consumer = Handling::Leased.no_op(broker.consumer(TARGET).config(config), move || {
            handled.fetch_add(1, Ordering::Relaxed);
        });
        started.push(consumer.start().await?);
    } else {
        for n in 0..consumers {
            let consumer = Handling::Leased.no_op(broker.consumer(format!("idle_{n}")), || ());
            started.push(consumer.start().await?);
        }
    }
    let mut lifeline = [0; 1];
    tokio::select! {
        () = told_to_stop => {}
        // At its end: the parent is gone.
        _ = async { stdin().read(&mut lifeline).await } => {}
        failed = tell(before, &handled) => failed?,
    }
    futures::future::try_join_all(started.into_iter().map(doorbell::Consumer::shutdown)).await?;
    broker.close().await;
    Ok(())
}

async fn tell(bytes_before: f64, handled: &AtomicU64) -> Result<()> {
    let mut told = u64::MAX;
    loop {
        let last = Instant::now();
        while handled.load(Ordering::Relaxed) == told && last.elapsed() < Duration::from_secs(1) {
            sleep(LOOK).await;
        }
        told = handled.load(Ordering::Relaxed);
        writeln!(stdout().lock(), "{}", serde_json::to_string(&SelfReport::now(bytes_before, told))?)?;
        sleep(LOOK).await;
    }
}
