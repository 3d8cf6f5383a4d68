//! `doorbell targets`: who gets messages, and whether they may.

use std::io::{IsTerminal, stdout};

use clap::Args;
use doorbell::operate::{TargetState, Trouble};
use serde_json::{Value, json};

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    output,
};

const HEADINGS: [&str; 9] =
    ["TARGET", "PENDING", "SCHEDULED", "PROCESSING", "FAILED", "OLDEST PENDING", "PROCESSES", "WORKERS", "STATE"];

/// How many targets of a trouble are named.
const NAMED_MAX: usize = 3;

/// List the targets: what waits for each, who consumes it, and whether it is paused or its breaker open
///
/// A target is listed when it has messages, settings or consumers. STATE says what keeps its messages from being handled, and
/// below the table, or in it for programs, stands who paused it and why, why its breaker is open, or that a limit is reached.
/// PROCESSES are those alive that consume it, WORKERS the messages they handle at the same time.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell targets
  doorbell targets --trouble
  doorbell targets --json | jq '.targets[] | select(.closed_gates != [])'

JSON: {\"targets\": [{\"target\", \"stats\", \"processes\", \"workers\", \"set_aside\", \"closed_gates\": [{\"code\", \"sentence\"}]}]}; \
stats as `doorbell stats` has them. With --trouble: {\"troubles\": [{\"code\", \"stops\", \"targets\", \"messages\", \
\"oldest_age_seconds\", \"fix\"}]}; code is no_consumer, set_aside, failed or that of a gate.")]
pub(crate) struct Targets {
    /// Only what is wrong, folded by kind, the worst first: what stops messages, then what is to be looked at
    #[arg(long)]
    trouble: bool,
}

impl Targets {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let operator = global.database.broker().await?.operator();
        if self.trouble {
            return show_troubles(global, &operator.overview(0).await?.troubles);
        }
        let targets = operator.targets().await?;
        if global.json {
            let targets: Vec<Value> = targets.iter().map(target_json).collect();
            output::json(&json!({ "targets": targets }))?;
            return Ok(Exit::Done);
        }
        if targets.is_empty() {
            eprintln!("there are no targets");
        }
        output::table(&HEADINGS, &targets.iter().map(cells).collect::<Vec<_>>())?;
        if stdout().is_terminal() {
            // Sentences are longer than a column is wide.
            let sentences = targets.iter().flat_map(|target| &target.closed_gates).map(|(_, sentence)| sentence);
            sentences.for_each(|sentence| eprintln!("{}", output::printable(sentence)));
        }
        Ok(Exit::Done)
    }
}

fn show_troubles(global: &Global, troubles: &[Trouble]) -> Result<Exit, Failure> {
    if global.json {
        let troubles = troubles.iter().map(|trouble| {
            json!({
                "code": trouble.code, "stops": trouble.stops, "targets": trouble.targets, "messages": trouble.messages,
                "oldest_age_seconds": trouble.oldest_age.map(|age| age.as_secs_f64()), "fix": trouble.fix(),
            })
        });
        output::json(&json!({ "troubles": troubles.collect::<Vec<_>>() }))?;
        return Ok(Exit::Done);
    }
    if troubles.is_empty() {
        eprintln!("no target is in trouble");
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = troubles
        .iter()
        .map(|trouble| {
            let (named, others) = trouble.targets.split_at(trouble.targets.len().min(NAMED_MAX));
            let others = if others.is_empty() { String::new() } else { format!(", {} more", others.len()) };
            vec![
                trouble.code.replace('_', " "),
                trouble.messages.to_string(),
                trouble.oldest_age.map_or_else(|| "-".to_owned(), duration::coarse),
                named.join(", ") + &others,
            ]
        })
        .collect();
    output::table(&["TROUBLE", "MESSAGES", "OLDEST PENDING", "TARGETS"], &rows)?;
    Ok(Exit::Done)
}

fn cells(target: &TargetState) -> Vec<String> {
    let stats = &target.stats;
    vec![
        stats.target.clone(),
        stats.pending.to_string(),
        stats.scheduled.to_string(),
        stats.processing.to_string(),
        stats.failed.to_string(),
        stats.oldest_age().map_or_else(|| "-".to_owned(), duration::coarse),
        target.processes.to_string(),
        target.workers.to_string(),
        if stdout().is_terminal() { state_in_short(target) } else { state(target) },
    ]
}

/// What keeps the target's messages from being handled, in words.
pub(crate) fn state(target: &TargetState) -> String {
    match &target.closed_gates[..] {
        [] if target.is_abandoned() => "open, but no live consumer".to_owned(),
        [] => "open".to_owned(),
        gates => gates.iter().map(|(_, sentence)| sentence.as_str()).collect::<Vec<_>>().join("; "),
    }
}

fn state_in_short(target: &TargetState) -> String {
    match &target.closed_gates[..] {
        [] if target.is_abandoned() => "nobody consumes".to_owned(),
        [] => "open".to_owned(),
        gates => gates.iter().map(|(code, _)| code.replace('_', " ")).collect::<Vec<_>>().join(", "),
    }
}

pub(crate) fn target_json(target: &TargetState) -> Value {
    let gates: Vec<Value> =
        target.closed_gates.iter().map(|(code, sentence)| json!({ "code": code, "sentence": sentence })).collect();
    json!({
        "target": target.stats.target, "stats": target.stats, "processes": target.processes, "workers": target.workers,
        "set_aside": target.set_aside, "closed_gates": gates,
    })
}
