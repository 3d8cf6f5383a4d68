//! `doorbell targets`: who gets messages, and whether they may.

use std::io::{IsTerminal, stdout};

use clap::Args;
use doorbell::operate::TargetState;
use serde_json::{Value, json};

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    output,
};

const HEADINGS: [&str; 9] =
    ["TARGET", "PENDING", "SCHEDULED", "PROCESSING", "FAILED", "OLDEST PENDING", "PROCESSES", "WORKERS", "STATE"];

/// List the targets: what waits for each, who consumes it, and whether it is paused or its breaker open
///
/// A target is listed when it has messages, settings or consumers. STATE says what keeps its messages from being handled, and
/// below the table, or in it for programs, stands who paused it and why, why its breaker is open, or that a limit is reached.
/// PROCESSES are those alive that consume it, WORKERS the messages they handle at the same time.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell targets
  doorbell targets --json | jq '.targets[] | select(.closed_gates != [])'

JSON: {\"targets\": [{\"target\", \"stats\", \"processes\", \"workers\", \"set_aside\", \"closed_gates\": [{\"code\", \"sentence\"}]}]}; \
stats as `doorbell stats` has them.")]
pub(crate) struct Targets {}

impl Targets {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let targets = global.database.broker().await?.operator().targets().await?;
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
        [] if is_abandoned(target) => "open, but no live consumer".to_owned(),
        [] => "open".to_owned(),
        gates => gates.iter().map(|(_, sentence)| sentence.as_str()).collect::<Vec<_>>().join("; "),
    }
}

fn state_in_short(target: &TargetState) -> String {
    match &target.closed_gates[..] {
        [] if is_abandoned(target) => "nobody consumes".to_owned(),
        [] => "open".to_owned(),
        gates => gates.iter().map(|(code, _)| code.replace('_', " ")).collect::<Vec<_>>().join(", "),
    }
}

/// Whether messages wait and nobody is registered who would take them.
pub(crate) fn is_abandoned(target: &TargetState) -> bool {
    target.processes == 0 && target.stats.pending > 0
}

pub(crate) fn target_json(target: &TargetState) -> Value {
    let gates: Vec<Value> =
        target.closed_gates.iter().map(|(code, sentence)| json!({ "code": code, "sentence": sentence })).collect();
    json!({
        "target": target.stats.target, "stats": target.stats, "processes": target.processes, "workers": target.workers,
        "set_aside": target.set_aside, "closed_gates": gates,
    })
}
