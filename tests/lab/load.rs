//! The load of the lab: producers and consumers whose ledgers are files, outside the database that is broken meanwhile.
//!
//! A line is written when it is true: `pub|time|op|target|answer|id` after a publish, `run|…` before and `end|…` after a
//! handler, both `time|op|target|id|attempt`. What was not written did not happen.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Parser, Subcommand, ValueEnum};
use doorbell::{Broker, BrokerConfig, Consumer, ConsumerConfig, Delivery, ErrorKind, Message, Outcome, Settings};
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, sleep};

/// Between two attempts to begin, while no primary answers.
const AGAIN: Duration = Duration::from_millis(300);

#[derive(Parser)]
struct Arguments {
    /// Where the database is; all hosts of the cluster.
    #[arg(long, env = "LAB_URL")]
    url: String,
    /// The file to append to.
    #[arg(long)]
    ledger: PathBuf,
    /// Most connections of this process, besides two.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Publishes to targets in turn, at a steady rate.
    Produce {
        /// Unique; the messages are NAME-0, NAME-1 and so on.
        name: String,
        #[arg(required = true)]
        targets: Vec<String>,
        #[arg(long, default_value_t = 40.0)]
        per_second: f64,
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
        /// With the name of the message as its dedup key.
        #[arg(long)]
        keyed: bool,
        /// Every so many messages, one is slow to handle.
        #[arg(long, default_value_t = 100)]
        slow_every: u64,
        #[arg(long, default_value_t = 8000)]
        slow_ms: u64,
    },
    /// Consumes a target until told to end.
    Consume {
        target: String,
        #[arg(long, default_value = "leased")]
        mode: Mode,
        #[arg(long, default_value_t = 8)]
        concurrency: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// A plain handler.
    Leased,
    /// A transactional handler, leased.
    Tx,
    /// A transactional handler that holds its messages.
    Held,
}

#[derive(Serialize, Deserialize)]
struct Body {
    op: String,
    work_ms: u64,
}

#[derive(Clone)]
struct Ledger(Arc<File>);

impl Ledger {
    fn open(path: &PathBuf) -> std::io::Result<Self> {
        Ok(Self(Arc::new(OpenOptions::new().append(true).create(true).open(path)?)))
    }

    #[expect(clippy::disallowed_methods, reason = "a ledger of this machine's, compared with itself alone")]
    fn line(&self, what: &str, rest: std::fmt::Arguments<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs_f64();
        // In one call: several threads write.
        (&*self.0).write_all(format!("{what}|{now:.3}|{rest}\n").as_bytes()).expect("the ledger takes a line");
    }

    fn handler(&self, what: &str, body: &Body, delivery: &Delivery) {
        self.line(what, format_args!("{}|{}|{}|{}", body.op, delivery.target, delivery.id, delivery.attempt));
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "doorbell=info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let ledger = Ledger::open(&arguments.ledger)?;
    let settings = Settings::parse(&arguments.url)?;
    let config = BrokerConfig { connections_max: arguments.connections, ..Default::default() };
    let broker = loop {
        match Broker::with_config(settings.clone(), config.clone()).await {
            Ok(broker) => break broker,
            Err(_) => sleep(AGAIN).await,
        }
    };
    match arguments.verb {
        Verb::Produce { name, targets, per_second, seconds, keyed, slow_every, slow_ms } => {
            let work_ms = |n: u64| if n % slow_every == slow_every - 1 { slow_ms } else { 10 };
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let end = Instant::now() + Duration::from_secs_f64(seconds);
            for n in 0.. {
                if ticks.tick().await >= end {
                    break;
                }
                let body = Body { op: format!("{name}-{n}"), work_ms: work_ms(n) };
                publish(&broker, &ledger, &body, &targets[n as usize % targets.len()], keyed).await?;
            }
        }
        Verb::Consume { target, mode, concurrency } => {
            let consumer = loop {
                match consume(&broker, &ledger, &target, mode, concurrency).await {
                    Ok(consumer) => break consumer,
                    Err(_) => sleep(AGAIN).await,
                }
            };
            doorbell::shutdown_signal().await;
            consumer.shutdown().await?;
        }
    }
    broker.close().await;
    Ok(())
}

async fn publish(broker: &Broker, ledger: &Ledger, body: &Body, target: &str, keyed: bool) -> doorbell::Result<()> {
    let mut message = Message::new(target, "op", body)?;
    if keyed {
        message = message.dedup_key(&body.op);
    }
    match broker.producer("lab").publish(&message).await {
        Ok(id) => ledger.line("pub", format_args!("{}|{target}|ack|{id}", body.op)),
        // Under a dedup key it was tried many times, any of which may have happened.
        Err(error) if keyed || error.kind() == ErrorKind::OutcomeUnknown => {
            ledger.line("pub", format_args!("{}|{target}|unknown|", body.op));
        }
        Err(_) => ledger.line("pub", format_args!("{}|{target}|refused|", body.op)),
    }
    Ok(())
}

async fn consume(
    broker: &Broker,
    ledger: &Ledger,
    target: &str,
    mode: Mode,
    concurrency: usize,
) -> doorbell::Result<Consumer> {
    const EFFECT: &str = "insert into lab.effect (op, id, attempt) values ($1, $2, $3)";
    let hold = match mode {
        Mode::Leased | Mode::Tx => None,
        Mode::Held => Some(Duration::from_secs(1)),
    };
    let config = ConsumerConfig { concurrency, hold, ..Default::default() };
    let (consumer, ledger) = (broker.consumer(target).config(config), ledger.clone());
    let consumer = match mode {
        Mode::Leased => consumer.on("op", move |body: Body, delivery| {
            let ledger = ledger.clone();
            async move {
                ledger.handler("run", &body, &delivery);
                sleep(Duration::from_millis(body.work_ms)).await;
                ledger.handler("end", &body, &delivery);
                Ok(Outcome::Done)
            }
        }),
        Mode::Tx | Mode::Held => consumer.on_tx("op", move |body: Body, delivery, tx| {
            let ledger = ledger.clone();
            async move {
                ledger.handler("run", &body, &delivery);
                sleep(Duration::from_millis(body.work_ms)).await;
                tx.execute(EFFECT, &[&body.op, &delivery.id, &delivery.attempt]).await?;
                ledger.handler("end", &body, &delivery);
                Ok(Outcome::Done)
            }
            .boxed()
        }),
    };
    consumer.start().await
}
