//! `doorbell bench`: how fast it is here, beside what cannot be beaten here.
//!
//! Every figure has its floor from the same run on the same server, taken in turns: floor, ours, floor, ours. Medians and
//! ranges of the turns are kept, and the ratio is what counts: absolute figures say more of the machine.

mod consumer;
mod place;
#[cfg(any(feature = "report", test))]
mod report;
mod show;

use std::time::Duration;

use clap::{Args, ValueEnum};
use doorbell_bench::{
    Lab,
    measure::{Effort, Scenario},
    scenario,
};

use self::place::{Place, PlaceArgs};
use crate::{
    Global, duration,
    exit::{Exit, Failure},
    signals::Signals,
};

pub(crate) use consumer::BenchConsumer;

/// Measure how fast it is on this machine, beside floors of the same run
///
/// Runs on a durable private server that vanishes afterwards; on a database of yours only with --database-url. Each figure
/// is printed with its floor (the same work in raw SQL, taken in turns on the same server) and their ratio.
#[derive(Args, Debug)]
#[cfg_attr(
    any(feature = "report", test),
    command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)
)]
#[command(after_help = "\
Examples:
  doorbell bench drain
  doorbell bench publish wake --seconds 5 --json | jq '{scenario, ratio}'
  doorbell bench backlog --bindir /usr/lib/postgresql/18/bin

JSON: one object per scenario: {\"scenario\", \"case\", \"figure\", \"floor\", \"ratio\", \"unit\", \"better\", \"floor_is\", \
\"samples\", \"figure_range\", \"floor_range\", \"settings\", \"server\", \"cases\": […]}; ratio = figure / floor.")]
pub(crate) struct Bench {
    #[cfg(any(feature = "report", test))]
    #[command(subcommand)]
    command: Option<BenchCommand>,

    /// What to measure
    #[arg(required = true, value_enum)]
    scenarios: Vec<Name>,

    #[command(flatten)]
    effort: EffortArgs,

    #[command(flatten)]
    place: PlaceArgs,
}

#[cfg(any(feature = "report", test))]
#[derive(Debug, clap::Subcommand)]
enum BenchCommand {
    Report(report::Report),
}

/// How fast an idle consumer wakes, and one under load
///
/// The same as `doorbell bench wake`, and again at 10, 50 and 90 % of what producers and consumer can do on this machine.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell latency
  doorbell latency --seconds 30 --json

JSON: as `doorbell bench`, one object.")]
pub(crate) struct Latency {
    #[command(flatten)]
    effort: EffortArgs,

    #[command(flatten)]
    place: PlaceArgs,
}

/// The scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// One message a commit, 1, 8 and 32 producers, consumers busy and idle
    Publish,
    /// 1000 messages a call
    Bulk,
    /// A backlog of messages whose handlers do nothing, payloads of 100 B, 1 KB and 10 KB, always leased
    Drain,
    /// The same as by default: held where handlers are short
    HeldDrain,
    /// The same with transactional handlers
    TxDrain,
    /// What a claim costs with many messages pending or scheduled
    Backlog,
    /// What a claim costs while another session keeps vacuum from cleaning up
    Pinned,
    /// 1 to 64 consumer processes on one target
    Fleet,
    /// From the publisher's acknowledgement to the handler of an idle consumer
    Wake,
    /// 1000 consumers in one process that have nothing to do
    Idle,
    /// WAL and index entries per message, by lifecycle and audit level
    Schema,
    /// Wake-ups under load (as `doorbell latency`)
    #[value(skip)]
    Latency,
}

impl Name {
    async fn run(self, lab: &Lab, effort: &Effort) -> doorbell_bench::Result<Option<Scenario>> {
        match self {
            Self::Publish => scenario::publish(lab, effort).await,
            Self::Bulk => scenario::bulk(lab, effort).await,
            Self::Drain => scenario::drain(lab, effort).await,
            Self::HeldDrain => scenario::held_drain(lab, effort).await,
            Self::TxDrain => scenario::tx_drain(lab, effort).await,
            Self::Backlog => scenario::backlog(lab, effort).await,
            Self::Pinned => scenario::pinned(lab, effort).await,
            Self::Fleet => scenario::fleet(lab, effort).await,
            Self::Wake => scenario::wake(lab, effort).await,
            Self::Idle => scenario::idle(lab, effort).await,
            Self::Schema => scenario::schema(lab, effort).await,
            Self::Latency => scenario::latency(lab, effort).await,
        }
    }
}

/// How much to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct EffortArgs {
    /// How long each sample of a rate takes, and all samples of a latency together [default: 2 and 10]
    #[arg(long, value_name = "DURATION", value_parser = duration::between("1ms", "1d"), allow_hyphen_values = true)]
    seconds: Option<Duration>,

    /// How often floor and figure take turns [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// How many messages are drained [default: 20000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10..))]
    messages: Option<u64>,

    /// How many messages a deep backlog has [default: 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(100..))]
    deep: Option<u64>,

    /// How many consumer processes a fleet has at most [default: 64]
    #[arg(long, value_name = "N")]
    processes: Option<usize>,

    /// How many consumers are idle [default: 1000]
    #[arg(long, value_name = "N")]
    consumers: Option<usize>,

    /// Less of everything, in about a quarter of the time
    #[arg(long)]
    quick: bool,
}

impl EffortArgs {
    fn effort(&self) -> Effort {
        let quick = |usual, quick| if self.quick { quick } else { usual };
        let seconds = |usual, hurried| self.seconds.unwrap_or(Duration::from_millis(quick(usual, hurried)));
        Effort {
            window: seconds(2000, 500),
            latencies: seconds(10_000, 3000),
            rounds: self.rounds.map_or(quick(3, 1) as usize, usize::from),
            messages: self.messages.unwrap_or(20_000),
            deep: self.deep.unwrap_or(quick(1_000_000, 100_000)),
            processes: self.processes.unwrap_or(quick(64, 16) as usize),
            consumers: self.consumers.unwrap_or(1000).max(2),
        }
    }
}

impl Bench {
    pub(crate) async fn run(self, global: &Global, mut signals: Signals) -> Result<Exit, Failure> {
        #[cfg(any(feature = "report", test))]
        if let Some(BenchCommand::Report(report)) = self.command {
            return report.run(global, signals).await;
        }
        measured(global, &self.place, &self.effort, &self.scenarios, &mut signals).await
    }
}

impl Latency {
    pub(crate) async fn run(self, global: &Global, mut signals: Signals) -> Result<Exit, Failure> {
        measured(global, &self.place, &self.effort, &[Name::Latency], &mut signals).await
    }
}

async fn measured(
    global: &Global,
    place: &PlaceArgs,
    effort: &EffortArgs,
    names: &[Name],
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let effort = effort.effort();
    let place = tokio::select! {
        biased;
        () = signals.next() => return Ok(Exit::Interrupted),
        place = Place::open(place, global) => place?,
    };
    eprintln!("{}", place.server);
    let measuring = async {
        for &name in names {
            if let Some(scenario) = measure(&place.lab, name, &effort).await? {
                if global.json {
                    show::json(&scenario, &place.server)?;
                } else {
                    show::table(&scenario)?;
                }
            }
        }
        Ok(Exit::Done)
    };
    let ended = tokio::select! {
        biased;
        () = signals.next() => Ok(Exit::Interrupted),
        ended = measuring => ended,
    };
    place.close().await?;
    ended
}

/// One scenario, with words on stderr while it runs.
async fn measure(lab: &Lab, name: Name, effort: &Effort) -> Result<Option<Scenario>, Failure> {
    let scenario = name.to_possible_value().map_or("latency".to_owned(), |value| value.get_name().to_owned());
    eprintln!("{scenario}:");
    name.run(lab, effort).await.map_err(|error| failure(error).context(scenario))
}

/// Errors of a measurement as the program reports all others.
fn failure(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    match error.downcast::<doorbell::Error>() {
        Ok(error) => Failure::from(*error),
        Err(error) => match error.downcast::<tokio_postgres::Error>() {
            Ok(error) => Failure::from(doorbell::Error::from(*error)),
            Err(error) => Failure::new(Exit::Failed, error.to_string()),
        },
    }
}
