//! `doorbell stats`: what is where.

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use doorbell::operate::{TargetState, TargetStats, Traffic};
use serde::Serialize;
use serde_json::json;

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    names, output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 8] =
    ["TARGET", "PENDING", "SCHEDULED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED", "OLDEST PENDING"];

/// The actions that a table of traffic has.
const TRAFFIC: [&str; 6] = ["published", "claimed", "completed", "errored", "failed", "rescued"];

const EVERY: Duration = Duration::from_secs(1);
/// What waits for longer is a backlog.
const BACKLOG: Duration = Duration::from_secs(60);

/// Show the messages of every target, by status
///
/// OLDEST PENDING is the age of the oldest message that could be handled now: near zero when consumers keep up. Which targets
/// are paused, or have an open breaker, and why, is said on stderr, and when a backlog will have been handled; `doorbell targets`
/// has it as data.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell stats
  doorbell stats --watch                                      every second, until Ctrl-C
  doorbell stats --traffic 1h --target billing                what happened, by the minute
  doorbell stats --json | jq '.targets[] | select(.failed > 0)'

JSON: {\"targets\": [{\"target\", \"pending\", \"scheduled\", \"processing\", \"completed\", \"failed\", \
\"cancelled\", \"oldest_age_seconds\", \
\"empty_in_seconds\", \"next_due_in_seconds\", \"published_per_second\", \"completed_per_second\", \
\"errored_last_hour\", \"rescued_last_hour\", \"failed_last_hour\", \"sweep_share\"}]}; one line a second with --watch. With --traffic: {\"step_seconds\", \"traffic\": [{\"at\", \"actions\"}]}; actions are counts by \
name.")]
pub(crate) struct Stats {
    /// Again every second
    #[arg(short, long, conflicts_with = "traffic")]
    watch: bool,
    /// Instead, what happened in the last so long (30m, 1d): by the minute up to three hours, else by ten minutes, for two days
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    traffic: Option<Duration>,
    /// The traffic of this target, not of all together
    #[arg(short, long, requires = "traffic")]
    target: Option<String>,
}

impl Stats {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        if let Some(span) = self.traffic {
            let traffic = broker.operator().traffic(self.target.as_deref(), span).await?;
            if traffic.actions.is_empty() && !names::is_unknown(&broker, self.target.as_deref()).await? {
                eprintln!("nothing happened");
            }
            print_traffic(&traffic, global.json)?;
            return Ok(if traffic.actions.is_empty() { Exit::NothingFound } else { Exit::Done });
        }
        let mut tick = tokio::time::interval(EVERY);
        loop {
            tick.tick().await;
            let targets = broker.operator().targets().await?;
            let stats: Vec<TargetStats> = targets.iter().map(|target| target.stats.clone()).collect();
            if self.watch && !global.json && std::io::stdout().is_terminal() {
                // Home, and clear what is below: redrawn in place without flicker.
                output::line("\x1b[H\x1b[J")?;
            }
            print(&stats, global.json)?;
            if !global.json {
                report_closed(&targets);
                stats.iter().for_each(report_end);
            }
            if !self.watch {
                return Ok(Exit::Done);
            }
        }
    }
}

/// When a backlog will have been handled, for people only.
pub(crate) fn report_end(stats: &TargetStats) {
    if stats.oldest_age() < Some(BACKLOG) {
        return;
    }
    let TargetStats { target, pending, .. } = stats;
    let end = match stats.empty_in() {
        Some(end) => format!("empty in about {}", duration::coarse(end)),
        None => "not becoming less".to_owned(),
    };
    eprintln!("{}: {pending} pending, {end} at the rate of the last five minutes", output::printable(target));
}

/// Why some are not handled, for people only.
fn report_closed(targets: &[TargetState]) {
    for (_, sentence) in targets.iter().flat_map(|target| &target.closed_gates) {
        eprintln!("{}", output::printable(sentence));
    }
}

fn print_traffic(traffic: &Traffic, as_json: bool) -> std::io::Result<()> {
    if as_json {
        let steps = traffic.actions.iter().map(|(at, actions)| json!({ "at": rfc3339(*at), "actions": actions }));
        let step = traffic.step.as_secs();
        return output::json(&json!({ "step_seconds": step, "traffic": steps.collect::<Vec<_>>() }));
    }
    let rows: Vec<Vec<String>> = traffic
        .actions
        .iter()
        .map(|(at, actions)| {
            let counts = TRAFFIC.map(|action| actions.get(action).copied().unwrap_or_default().to_string());
            [output::time(*at)].into_iter().chain(counts).collect()
        })
        .collect();
    let headings = TRAFFIC.map(str::to_uppercase);
    let headings: Vec<&str> = ["SINCE"].into_iter().chain(headings.iter().map(String::as_str)).collect();
    output::table(&headings, &rows)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    targets: &'a [TargetStats],
}

fn print(stats: &[TargetStats], as_json: bool) -> std::io::Result<()> {
    if as_json {
        return output::json(&Report { targets: stats });
    }
    let rows: Vec<Vec<String>> = stats
        .iter()
        .map(|stats| {
            let counts =
                [stats.pending, stats.scheduled, stats.processing, stats.completed, stats.failed, stats.cancelled];
            let oldest = stats.oldest_age().map_or_else(|| "-".to_owned(), duration::coarse);
            [stats.target.clone()].into_iter().chain(counts.map(|count| count.to_string())).chain([oldest]).collect()
        })
        .collect();
    if rows.is_empty() {
        eprintln!("there are no messages");
    }
    output::table(&HEADINGS, &rows)
}
