//! The consumer that is killed: this program once more, as a process of its own.

use std::{process::Stdio, time::Duration};

use clap::Args;
use doorbell::{Broker, ConsumerConfig, MessageId};
use tokio::{
    io::{AsyncReadExt, stdin},
    process::{Child, Command},
    time::{Instant, interval, sleep_until},
};

use super::{handlers, ledger::Ledger, orders, view::View};
use crate::{
    exit::{Exit, Failure},
    signals::Signals,
};

/// Not an argument: other users of the machine can see command lines.
const DATABASE_VARIABLE: &str = "DOORBELL_DATABASE_URL";

/// How long it takes for a message: long enough to be killed over it.
const HANDLING: Duration = Duration::from_millis(60);

const CONCURRENCY: usize = 4;

const EVERY: Duration = Duration::from_millis(10);

const REGISTERED: &str = "select count(*) from integration.processes where pid = $1 and targets <> '{}'";
const HELD: &str = "select d.id, c.owner from integration.data_staging d \
    join integration.processes c on c.owner = d.owner where c.pid = $1 and d.status = 'processing'";
const STILL_HELD: &str = "select count(*) from integration.data_staging where owner = $1 and status = 'processing'";

/// The process, while it lives.
pub(super) struct Victim {
    process: Child,
    pid: i32,
}

/// What it left behind.
pub(super) struct Killed {
    pub(super) pid: i32,
    /// What it was handling.
    pub(super) held: Vec<MessageId>,
    /// How long those were held by nobody alive.
    pub(super) rescued_after: Duration,
}

impl Victim {
    pub(super) async fn start(database: &str) -> Result<Self, Failure> {
        let failed = |error| Failure::from(error).context("cannot start another consumer");
        let process = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("demo-consumer")
            .env(DATABASE_VARIABLE, database)
            // Its lifeline: it ends when we do, however we end.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        Ok(Self { process, pid })
    }

    /// Lets it work for a while, kills it while it handles something, and waits until that is rescued.
    pub(super) async fn kill_at_work(
        mut self,
        after: Duration,
        ledger: &Ledger,
        view: &View,
    ) -> Result<Killed, Failure> {
        let pid = self.pid;
        let begin = Instant::now();
        let mut tick = interval(EVERY);
        while ledger.number(REGISTERED, &[&pid]).await? == 0 {
            if let Some(status) = self.process.try_wait()? {
                return Err(Failure::new(Exit::Failed, format!("the other consumer ended with {status}")));
            }
            tick.tick().await;
        }
        sleep_until(begin + after).await;
        // Between two looks it may settle what it held; so it is looked once more when it is dead.
        while ledger.rows(HELD, &[&pid]).await?.is_empty() {
            tick.tick().await;
        }
        self.process.start_kill()?;
        self.process.wait().await?;
        let killed_at = Instant::now();
        let held = ledger.rows(HELD, &[&pid]).await?;
        view.say(format_args!("kill -9 {pid}: a consumer process is dead, with {} messages in its hands", held.len()));
        if let Some(row) = held.first() {
            let owner: String = row.try_get(1).map_err(doorbell::Error::from)?;
            ledger.until_zero(STILL_HELD, &[&owner]).await?;
        }
        let rescued_after = killed_at.elapsed();
        view.say(format_args!(
            "its messages were rescued after {:.1} s, and go to others",
            rescued_after.as_secs_f64()
        ));
        let held = held.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(doorbell::Error::from)?;
        Ok(Killed { pid, held, rescued_after })
    }
}

/// The other side: `doorbell demo-consumer`, hidden.
#[derive(Args, Debug)]
pub(crate) struct DemoConsumer {}

impl DemoConsumer {
    /// Consumes until it is killed, told to stop, or its parent is gone.
    pub(crate) async fn run(self, mut signals: Signals) -> Result<Exit, Failure> {
        let database = std::env::var(DATABASE_VARIABLE).map_err(|_| {
            Failure::new(Exit::Usage, format!("{DATABASE_VARIABLE} is not set; this is a part of `doorbell demo`"))
        })?;
        let ledger = Ledger::open(&database).await?;
        let broker = Broker::connect(&database).await?;
        let mut consumers = Vec::new();
        for target in orders::TARGETS {
            let config = ConsumerConfig { concurrency: CONCURRENCY, ..ConsumerConfig::default() };
            let slow = handlers::consumer(&broker, target, &ledger, HANDLING).config(config);
            consumers.push(slow.start().await?);
        }
        let mut lifeline = [0; 1];
        tokio::select! {
            () = signals.next() => {}
            // At its end: the parent is gone.
            _ = async { stdin().read(&mut lifeline).await } => {}
        }
        for consumer in consumers {
            consumer.shutdown().await?;
        }
        broker.close().await;
        Ok(Exit::Done)
    }
}
