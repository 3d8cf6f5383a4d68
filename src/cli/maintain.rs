//! `doorbell maintain`: what consumers do beside their work, where none runs.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tracing::warn;

use super::{
    Global,
    exit::{Exit, Failure},
    output,
    watch::{Rounds, WatchArgs, Watched},
};

/// Rescue the messages of dead consumers, promote scheduled ones, create partitions ahead
///
/// Every process with a consumer does this anyway; run it where only plain SQL consumes, or as a second pair of eyes. It
/// keeps running, and trying, until it is stopped.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell maintain               every second, until Ctrl-C
  doorbell maintain --once        from cron
  doorbell maintain --metrics 0.0.0.0:9187")]
pub(crate) struct Maintain {
    /// Once, then say what was done
    #[arg(long)]
    once: bool,
    /// Seconds between rounds
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    every: f64,
    #[command(flatten)]
    watch: WatchArgs,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("give seconds from 0.1 to 86400".to_owned()),
    }
}

impl Maintain {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let watch = self.watch.prepare().await?;
        let broker = global.database.broker_with(watch.config()).await?;
        let every = Duration::from_secs_f64(self.every);
        let rounds = Rounds::new(every);
        let _serving = watch.serve(broker.clone(), Watched::Rounds(rounds.clone()));
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tick.tick().await;
            match broker.maintain().await {
                Ok(maintained) if self.once || maintained != Default::default() => {
                    failing = false;
                    if global.json {
                        output::json(&json!({ "rescued": maintained.rescued, "promoted": maintained.promoted }))?;
                    } else {
                        output::line(format_args!("rescued {}, promoted {}", maintained.rescued, maintained.promoted))?;
                    }
                }
                Ok(_) => failing = false,
                Err(error) if self.once || !error.is_transient() => return Err(error.into()),
                Err(error) if !failing => {
                    warn!(?error, "the database cannot be maintained; trying again until it can");
                    failing = true;
                }
                Err(_) => {}
            }
            rounds.over();
            if self.once {
                return Ok(Exit::Done);
            }
        }
    }
}
