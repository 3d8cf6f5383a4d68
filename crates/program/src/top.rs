//! `doorbell top`: everything at a glance, live.
//!
//! ```text
//! Sampler ─▶ Sample, once a second ─▶ History ─▶ view (a terminal) or one report (anything else)
//! ```

mod history;
mod report;
mod sample;
mod screen;
mod view;

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use self::{
    history::History,
    sample::Sampler,
    screen::{Key, Screen},
};
use crate::{
    Global, duration,
    exit::{Exit, Failure},
};

/// Watch rates, latency, targets and consumers, live
///
/// Rates and latency are counted from the messages and the audit log while it runs, so with the audit level off only
/// publishing is seen. Latency is from publishing to completion, of messages published while it runs. When stdout is not a
/// terminal it measures once, prints that, and ends. Keys: q ends it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell top
  doorbell top --json | jq .latency                 measured over one second

JSON: {\"seconds\", \"latency\": {\"p50_ms\", \"p95_ms\", \"p99_ms\", \"samples\"}, \"targets\": [{\"target\", \
\"published_per_second\", \"completed_per_second\", \"errored_per_second\", \"failed_per_second\", and \
the fields of `doorbell targets`}], \"processes\": [as `doorbell processes`]}; latency is null without samples.")]
pub(crate) struct Top {
    /// How long each measurement takes
    #[arg(long, value_name = "DURATION", default_value = "1s", allow_hyphen_values = true,
        value_parser = duration::between("100ms", "1h"))]
    every: Duration,
}

impl Top {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let mut sampler = Sampler::start(broker).await?;
        if global.json || !std::io::stdout().is_terminal() {
            tokio::time::sleep(self.every).await;
            report::print(&sampler.sample().await?, global.json)?;
            return Ok(Exit::Done);
        }
        let mut history = History::default();
        let mut screen = Screen::open()?;
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // The loop waits for a sample with the keys open: an unreachable database must not hold the terminal.
            tokio::select! {
                biased;
                key = screen.key() => match key? {
                    Key::Quit => return Ok(Exit::Done),
                    Key::Interrupt => return Ok(Exit::Interrupted),
                    Key::Redraw => {}
                },
                sample = async { tick.tick().await; sampler.sample().await } => match sample {
                    Ok(sample) => history.push(sample),
                    Err(error) if error.is_transient() => history.unreachable(error.to_string()),
                    Err(error) => return Err(error.into()),
                },
            }
            screen.draw(|frame| view::draw(frame, &history))?;
        }
    }
}
