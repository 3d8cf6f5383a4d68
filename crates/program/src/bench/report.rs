//! `doorbell bench report`: every scenario, and BENCHMARKS.md with tables and plots.

mod machine;
mod markdown;
mod peers;
mod plots;
mod results;

use std::{
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use clap::Args;

use self::{
    machine::Machine,
    results::{Results, Run},
};
use super::{
    place::{Place, PlaceArgs},
    scenarios::{EffortArgs, Name, measure},
    show,
};
use crate::{
    Global,
    exit::{Exit, Failure},
    output,
    signals::Signals,
    timestamp::rfc3339,
};

/// On the PostgreSQL that is found first.
const ALL: [Name; 16] = [
    Name::Publish,
    Name::Bulk,
    Name::Drain,
    Name::HeldDrain,
    Name::TxDrain,
    Name::Latency,
    Name::Backlog,
    Name::Pinned,
    Name::Keys,
    Name::Fanout,
    Name::Capture,
    Name::Request,
    Name::Fleet,
    Name::Idle,
    Name::Reads,
    Name::Schema,
];

/// On another one: what depends on the server.
const AGAIN: [Name; 7] =
    [Name::Publish, Name::Bulk, Name::Drain, Name::HeldDrain, Name::TxDrain, Name::Latency, Name::Backlog];

/// Text by hand that goes into the report: what was tried for a target that is missed.
const NOTES: &str = "notes.md";

/// Measure everything and write BENCHMARKS.md
///
/// Takes about fifteen minutes, with --quick less than five. Only a program built with the feature `report` has it. Private, durable servers only. A file notes.md beside the plots is
/// taken into the report as it is, so that what people wrote survives the next run.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell bench report
  doorbell bench report --bindir /usr/lib/postgresql/18/bin
  doorbell bench report --quick --out /tmp/BENCHMARKS.md")]
pub(crate) struct Report {
    /// The report
    #[arg(long, value_name = "FILE", default_value = "BENCHMARKS.md")]
    out: PathBuf,

    /// The plots, as SVG, below the report's directory
    #[arg(long, value_name = "DIRECTORY", default_value = "docs/benchmarks")]
    plots: PathBuf,

    /// The directory of the programs of one more PostgreSQL, beside the one that is found: what depends on the server runs
    /// there again, with the effort of --quick
    #[arg(long, value_name = "DIRECTORY")]
    bindir: Vec<PathBuf>,

    #[command(flatten)]
    effort: EffortArgs,

    /// Fetch PostgreSQL without asking where none is installed (or set DOORBELL_FETCH_PG=1)
    #[arg(long)]
    yes: bool,
}

impl Report {
    pub(super) async fn run(self, global: &Global, mut signals: Signals) -> Result<Exit, Failure> {
        if global.database.named().is_some() {
            return Err(Failure::new(
                Exit::Usage,
                "the report is measured on private servers; leave out --database-url",
            ));
        }
        tokio::select! {
            biased;
            () = signals.next() => Ok(Exit::Interrupted),
            ended = self.write(global) => ended,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the report is dated")]
    async fn write(self, global: &Global) -> Result<Exit, Failure> {
        let directory = self.out.parent().unwrap_or(Path::new("")).join(&self.plots);
        std::fs::create_dir_all(&directory).map_err(|error| named(&directory, error))?;
        let mut results = Results {
            date: rfc3339(SystemTime::now())[..16].replace('T', " ") + " UTC",
            command: self.command(),
            commit: machine::commit().await,
            machine: Machine::here(),
            runs: Vec::new(),
            notes: std::fs::read_to_string(directory.join(NOTES)).ok(),
            plots: self.plots.to_string_lossy().into_owned(),
        };
        let hurried = self.effort.clone().hurried();
        let again = self.bindir.iter().map(|bindir| (Some(bindir.clone()), &hurried, &AGAIN[..]));
        for (bindir, effort, names) in std::iter::once((None, &self.effort, &ALL[..])).chain(again) {
            results.runs.push(run(self.place(bindir), effort, names, global).await?);
            // Each time: a server that cannot be used must not cost what others took minutes to say.
            for (name, svg) in plots::all(&results.runs) {
                let path = directory.join(name);
                std::fs::write(&path, svg).map_err(|error| named(&path, error))?;
            }
            std::fs::write(&self.out, markdown::render(&results)).map_err(|error| named(&self.out, error))?;
            eprintln!("written: {} and the plots in {}", self.out.display(), directory.display());
        }
        Ok(Exit::Done)
    }

    fn place(&self, bindir: Option<PathBuf>) -> PlaceArgs {
        PlaceArgs { bindir, yes: self.yes, ..PlaceArgs::default() }
    }

    /// How to do it again; without directories, which are of this machine.
    fn command(&self) -> String {
        let quick = if self.effort.is_quick() { " --quick" } else { "" };
        let bindir = " --bindir <directory of another PostgreSQL's programs>".repeat(self.bindir.len());
        format!("cargo run --release --features report -- bench report{quick}{bindir}")
    }
}

async fn run(place: PlaceArgs, effort: &EffortArgs, names: &[Name], global: &Global) -> Result<Run, Failure> {
    let effort = effort.effort();
    let place = Place::private(&place).await?;
    let (began, server) = (Instant::now(), place.server.clone());
    eprintln!("{server}");
    let mut scenarios = Vec::new();
    for &name in names {
        if let Some(scenario) = measure(&place.lab, name, &effort).await? {
            if global.json {
                show::json(&scenario, &server)?;
            }
            scenarios.push(scenario);
        }
    }
    place.close().await?;
    if !global.json {
        output::line(format_args!(
            "PostgreSQL {}: {:.1} minutes",
            server.version,
            began.elapsed().as_secs_f64() / 60.0
        ))?;
    }
    Ok(Run { server, scenarios, minutes: began.elapsed().as_secs_f64() / 60.0 })
}

fn named(path: &Path, error: std::io::Error) -> Failure {
    Failure::from(error).context(path.display())
}
