//! What the demo shows while it runs: one living line on a terminal, a line every second elsewhere.

use std::{
    convert::Infallible,
    fmt::Display,
    io::{IsTerminal, stderr},
    time::Duration,
};

use doorbell::{Broker, operate::TargetStats};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval};

const TERMINAL_EVERY: Duration = Duration::from_millis(200);
const PLAIN_EVERY: Duration = Duration::from_secs(1);

/// On stderr, or nowhere.
pub(super) struct View {
    quiet: bool,
    terminal: bool,
    line: ProgressBar,
}

impl View {
    pub(super) fn new(quiet: bool) -> Self {
        let terminal = !quiet && stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let line = ProgressBar::with_draw_target(None, target).with_style(style("{spinner} {msg}"));
        Self { quiet, terminal, line }
    }

    /// A line that stays.
    pub(super) fn say(&self, what: impl Display) {
        if self.terminal {
            self.line.suspend(|| eprintln!("{what}"));
        } else if !self.quiet {
            eprintln!("{what}");
        }
    }

    /// A bar for a count that is known beforehand.
    pub(super) fn bar(&self, count: u64) -> ProgressBar {
        let target = if self.terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        ProgressBar::with_draw_target(Some(count), target).with_style(style("{bar:40} {pos}/{len}"))
    }

    /// Shows what the database counts, and how fast that grows, for as long as it is polled.
    pub(super) async fn follow(&self, broker: &Broker) -> Infallible {
        let mut tick = interval(if self.terminal { TERMINAL_EVERY } else { PLAIN_EVERY });
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Option<(Counts, Instant)> = None;
        loop {
            tick.tick().await;
            // Only a picture: the next one will do if this one fails.
            let Ok(stats) = broker.operator().stats().await else { continue };
            let (counts, now) = (Counts::from(stats.as_slice()), Instant::now());
            if let Some((last, at)) = before {
                let rate = |new: i64, old: i64| (new - old) as f64 / (now - at).as_secs_f64();
                let what = format!(
                    "published {:>5} ({:>4.0}/s)  completed {:>5} ({:>4.0}/s)  waiting {:>3}  processing {:>3}  failed {}",
                    counts.published,
                    rate(counts.published, last.published),
                    counts.completed,
                    rate(counts.completed, last.completed),
                    counts.waiting,
                    counts.processing,
                    counts.failed,
                );
                if self.terminal {
                    self.line.set_message(what);
                    self.line.tick();
                } else {
                    self.say(what);
                }
            }
            before = Some((counts, now));
        }
    }

    /// Takes the living line away.
    pub(super) fn end(&self) {
        self.line.finish_and_clear();
    }
}

/// Over all targets.
#[derive(Clone, Copy)]
struct Counts {
    published: i64,
    waiting: i64,
    processing: i64,
    completed: i64,
    failed: i64,
}

impl From<&[TargetStats]> for Counts {
    fn from(stats: &[TargetStats]) -> Self {
        let sum = |count: fn(&TargetStats) -> i64| stats.iter().map(count).sum::<i64>();
        let waiting = sum(|target| target.pending + target.scheduled);
        let (processing, completed) = (sum(|target| target.processing), sum(|target| target.completed));
        let failed = sum(|target| target.failed);
        let published = waiting + processing + completed + failed + sum(|target| target.cancelled);
        Self { published, waiting, processing, completed, failed }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
