//! How everything stands, trouble first.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use crate::{rows::TargetState, written::shell::quoted};

/// How many targets a sentence names.
const NAMED_MAX: usize = 3;

/// How everything stands; from [`Operator::overview`](super::Operator::overview).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Overview {
    /// What is wrong, folded by kind: what stops messages first, then by how many and how old they are.
    pub troubles: Vec<Trouble>,
    /// The targets, the most troubled first, then the busiest; at most as many as were asked for.
    pub targets: Vec<TargetState>,
    /// How many targets there are.
    pub known: usize,
    /// The messages of all targets, in the order of [`Status::ALL`](super::Status::ALL).
    pub messages: [i64; 6],
}

/// What is wrong with some targets.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Trouble {
    /// `no_consumer`: messages wait and nobody is there who would take them; `set_aside`: the database refuses to change some;
    /// `failed`: some failed for good; else the code of a gate that is closed while messages wait: `paused`, `breaker_open`, …
    pub code: String,
    /// Whether messages do not get on because of it; else it is to be looked at some time.
    pub stops: bool,
    /// The targets, worst first.
    pub targets: Vec<String>,
    /// Their messages that this is about.
    pub messages: i64,
    /// Age of the oldest pending one, where pending messages are what it is about.
    pub oldest_age: Option<Duration>,
}

impl Overview {
    /// Of what [`Operator::targets`](super::Operator::targets) says of all targets, with the `most` that are troubled most.
    pub fn of(mut targets: Vec<TargetState>, most: usize) -> Self {
        let mut messages = [0; 6];
        for target in &targets {
            let stats = &target.stats;
            let counts =
                [stats.pending, stats.scheduled, stats.processing, stats.completed, stats.failed, stats.cancelled];
            messages.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
        }
        let troubles = troubles(&targets);
        let rank = |target: &TargetState| {
            let stats = &target.stats;
            let stopped = troubles_of(target).iter().any(|(_, stops, ..)| *stops);
            let busy = stats.pending + stats.processing + stats.scheduled;
            (Reverse(stopped), Reverse(stats.failed + target.set_aside > 0), Reverse(weight(target)), Reverse(busy))
        };
        targets.sort_by_cached_key(|target| (rank(target), target.stats.target.clone()));
        let known = targets.len();
        targets.truncate(most);
        Self { troubles, targets, known, messages }
    }
}

impl Trouble {
    /// What is wrong, in one line; of many targets the first are named.
    pub fn sentence(&self) -> String {
        let (named, others) = self.targets.split_at(self.targets.len().min(NAMED_MAX));
        let others = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
        let targets = named.join(", ") + &others;
        match self.code.as_str() {
            "no_consumer" => format!("nobody consumes {targets}"),
            "set_aside" => format!("the database refuses to change messages of {targets}"),
            "failed" => format!("messages of {targets} failed for good"),
            gate => format!("{}: {targets}", gate.replace('_', " ")),
        }
    }

    /// What to type about it, for the worst of the targets; `None`: nothing needs to be done.
    pub fn fix(&self) -> Option<String> {
        let target = quoted(self.targets.first()?);
        Some(match self.code.as_str() {
            "no_consumer" => format!("start the service that handles the messages of {}", self.targets.first()?),
            "set_aside" => "doorbell doctor".to_owned(),
            "failed" => format!("doorbell errors --target {target}"),
            "paused" => format!("doorbell resume {target}"),
            "breaker_open" | "breaker_half_open" => "doorbell breaker".to_owned(),
            _ => return None,
        })
    }
}

/// What is wrong with a target: the code, whether it stops messages, how many it is about, and whether these are pending.
fn troubles_of(target: &TargetState) -> Vec<(&str, bool, i64, bool)> {
    let stats = &target.stats;
    let mut troubles = Vec::new();
    let waiting = stats.pending + stats.scheduled;
    for (code, _) in target.closed_gates.iter().filter(|_| waiting > 0) {
        // What is as busy as it may be gets on.
        troubles.push((code.as_str(), code != "in_flight_limit" && code != "rate_limited", waiting, true));
    }
    if target.is_abandoned() {
        troubles.push(("no_consumer", true, stats.pending, true));
    }
    if target.set_aside > 0 {
        troubles.push(("set_aside", true, target.set_aside, false));
    }
    if stats.failed > 0 {
        troubles.push(("failed", false, stats.failed, false));
    }
    troubles
}

/// How much a target's pending messages matter: their number and age.
fn weight(target: &TargetState) -> u128 {
    let age = target.stats.oldest_age().unwrap_or_default();
    target.stats.pending.max(0) as u128 * (age.as_millis() + 1)
}

fn troubles(targets: &[TargetState]) -> Vec<Trouble> {
    let mut kinds = BTreeMap::<&str, Vec<(&TargetState, bool, i64, bool)>>::new();
    for target in targets {
        for (code, stops, messages, pending) in troubles_of(target) {
            kinds.entry(code).or_default().push((target, stops, messages, pending));
        }
    }
    let mut troubles: Vec<_> = kinds
        .into_iter()
        .map(|(code, mut of)| {
            of.sort_by_key(|(target, _, messages, _)| (Reverse(weight(target)), Reverse(*messages)));
            let oldest =
                of.iter().filter(|(.., pending)| *pending).filter_map(|(target, ..)| target.stats.oldest_age());
            let trouble = Trouble {
                code: code.to_owned(),
                stops: of.iter().any(|(_, stops, ..)| *stops),
                messages: of.iter().map(|(_, _, messages, _)| messages).sum(),
                oldest_age: oldest.max(),
                targets: of.iter().map(|(target, ..)| target.stats.target.clone()).collect(),
            };
            let age = trouble.oldest_age.unwrap_or_default().as_millis() + 1;
            ((Reverse(trouble.stops), Reverse(trouble.messages.max(0) as u128 * age)), trouble)
        })
        .collect();
    troubles.sort_by_key(|(rank, _)| *rank);
    troubles.into_iter().map(|(_, trouble)| trouble).collect()
}
