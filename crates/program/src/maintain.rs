//! `doorbell maintain`: what consumers do beside their work, where none runs.

use std::time::Duration;

use clap::Args;
use doorbell::{Broker, BrokerConfig, operate::Maintained};
use serde_json::json;
use tracing::warn;

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    output,
    watch::{Rounds, WatchArgs, Watched},
};

/// Rescue, promote, fold counters, archive and purge what is past retention, keep partitions ahead
///
/// Processes with a consumer do this anyway, one at a time; run it where only plain SQL consumes, or as a second pair of
/// eyes. It keeps running, and trying, until it is stopped. Periods are columns of integration.settings and, by target, of
/// integration.targets.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell maintain               where no consumer does it, until Ctrl-C
  doorbell maintain --once        all of it now, from cron
  doorbell maintain --dry-run     what that would do
  doorbell maintain --metrics 0.0.0.0:9187

JSON: {\"rescued\", \"promoted\", \"copied\", \"extracted\", \"folded\", \"archived\", \"purged\", \"expired\", \"partitions_created\", \
\"partitions_dropped\", \"recounted\", \"partitions_busy\"}, one line for each round that did something; with --dry-run \
{\"due\": [{\"task\", \"object\", \"count\"}]}.")]
pub(crate) struct Maintain {
    /// Once, then say what was done
    #[arg(long)]
    once: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How long between rounds
    #[arg(long, value_name = "DURATION", default_value = "2s", allow_hyphen_values = true,
        value_parser = duration::between("100ms", "1d"))]
    every: Duration,
    #[command(flatten)]
    watch: WatchArgs,
}

impl Maintain {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let watch = self.watch.prepare().await?;
        let broker = self.broker(global, watch.config()).await?;
        if self.dry_run {
            return due(&broker, global.json).await;
        }
        if self.once {
            print(&broker.operator().maintain().await?, global.json)?;
            return Ok(Exit::Done);
        }
        let mut maintenance = broker.operator().maintenance();
        let rounds = Rounds::new(self.every);
        let _serving = watch.serve(broker.clone(), Watched::Rounds(rounds.clone()));
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut failing, mut leading) = (false, true);
        loop {
            tick.tick().await;
            match maintenance.round().await {
                Ok(done) => {
                    failing = false;
                    if leading != done.is_some() {
                        leading = done.is_some();
                        warn!(leading, "who does the maintenance has changed; without it this process stands by");
                    }
                    if let Some(done) = done.filter(|done| !done.is_idle()) {
                        print(&done, global.json)?;
                    }
                }
                Err(error) if !error.is_transient() => return Err(error.into()),
                Err(error) if !failing => {
                    warn!(?error, "the database cannot be maintained; trying again until it can");
                    failing = true;
                }
                Err(_) => {}
            }
            rounds.over();
        }
    }
}

impl Maintain {
    /// Connects; who keeps running waits for a server that comes later.
    async fn broker(&self, global: &Global, config: BrokerConfig) -> Result<Broker, Failure> {
        let mut failing = false;
        loop {
            match global.database.broker_with(config.clone()).await {
                Err(error)
                    if !self.once && !self.dry_run && matches!(error.exit, Exit::Unreachable | Exit::Temporary) =>
                {
                    if !failing {
                        warn!(%error, "the database cannot be reached; trying until it can");
                        failing = true;
                    }
                    tokio::time::sleep(self.every).await;
                }
                connected => return connected,
            }
        }
    }
}

async fn due(broker: &Broker, as_json: bool) -> Result<Exit, Failure> {
    let due = broker.operator().maintenance_due().await?;
    if as_json {
        output::json(&json!({ "due": due }))?;
        return Ok(Exit::Done);
    }
    if due.is_empty() {
        eprintln!("there is nothing to do");
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = due.into_iter().map(|due| vec![due.task, due.object, due.count.to_string()]).collect();
    output::table(&["TASK", "OF", "COUNT"], &rows)?;
    Ok(Exit::Done)
}

fn print(done: &Maintained, as_json: bool) -> std::io::Result<()> {
    if as_json {
        return output::json(done);
    }
    let parts = [
        ("rescued", done.rescued),
        ("promoted", done.promoted),
        ("archived", done.archived),
        ("purged", done.purged),
        ("copied for subscribers", done.copied),
        ("extracted", done.extracted),
        ("expired", done.expired),
        ("partitions created", done.partitions_created),
        ("partitions dropped", done.partitions_dropped),
        ("partitions busy", done.partitions_busy),
        ("counters repaired", done.recounted),
    ];
    // The first four always, the others where there is something to say.
    let said: Vec<String> = parts
        .iter()
        .enumerate()
        .filter(|(at, (_, count))| *at < 4 || *count > 0)
        .map(|(_, (what, count))| format!("{what} {count}"))
        .collect();
    output::line(said.join(", "))
}
