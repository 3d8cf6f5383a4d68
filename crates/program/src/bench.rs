//! `doorbell bench`: how fast it is here, beside what cannot be beaten here.
//!
//! Every figure has its floor from the same run on the same server, taken in turns: floor, ours, floor, ours. Medians and
//! ranges of the turns are kept, and the ratio is what counts: absolute figures say more of the machine.

mod consumer;
mod failure;
mod place;
#[cfg(any(feature = "report", test))]
mod report;
mod scenarios;
mod show;

use clap::Args;

use self::{
    place::{Place, PlaceArgs},
    scenarios::{EffortArgs, Name, measure},
};
use crate::{
    Global,
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
