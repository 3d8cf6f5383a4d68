//! `doorbell stats`: what is where.

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use doorbell::operate::{TargetState, TargetStats};
use serde::Serialize;

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    output,
};

const HEADINGS: [&str; 8] =
    ["TARGET", "PENDING", "SCHEDULED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED", "OLDEST PENDING"];

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
  doorbell stats --json | jq '.targets[] | select(.failed > 0)'

JSON: {\"targets\": [{\"target\", \"pending\", \"scheduled\", \"processing\", \"completed\", \"failed\", \
\"cancelled\", \"oldest_age_seconds\", \
\"empty_in_seconds\", \"next_due_in_seconds\", \"published_per_second\", \"completed_per_second\", \
\"errored_last_hour\", \"rescued_last_hour\", \"failed_last_hour\", \"sweep_share\"}]}; one line a second with --watch.")]
pub(crate) struct Stats {
    /// Again every second
    #[arg(short, long)]
    watch: bool,
}

impl Stats {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
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
