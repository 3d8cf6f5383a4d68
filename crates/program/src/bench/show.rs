//! Results on stdout: tables for people, JSON for programs.

use std::io;

use doorbell_bench::measure::{Better, Case, Scenario, number};
use serde_json::json;

use super::place::ServerFacts;
use crate::output;

pub(super) fn json(scenario: &Scenario, server: &ServerFacts) -> io::Result<()> {
    let mut object = serde_json::to_value(scenario)?;
    object["server"] = json!({
        "version": server.version,
        "private": server.private,
        "settings": server.settings.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    });
    output::json(&object)
}

pub(super) fn table(scenario: &Scenario) -> io::Result<()> {
    let rows: Vec<Vec<String>> = scenario.cases.iter().map(row).collect();
    output::table(
        &[scenario.scenario, "figure", "floor", "unit", "ratio", "target", "range", "range of the floor"],
        &rows,
    )?;
    for (name, value) in &scenario.settings {
        eprintln!("  {name}: {value}");
    }
    Ok(())
}

fn row(case: &Case) -> Vec<String> {
    vec![
        case.case.clone(),
        number(case.figure),
        number(case.floor),
        case.unit.to_owned(),
        ratio(case.ratio),
        target(case),
        span(case.figure_range),
        span(case.floor_range),
    ]
}

pub(super) fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// What was promised, and whether it is kept.
pub(super) fn target(case: &Case) -> String {
    let Some(target) = case.target else { return String::new() };
    let sign = if case.better == Better::Higher { "≥" } else { "≤" };
    let kept = if case.reached == Some(true) { "reached" } else { "missed" };
    format!("{sign} {target:.2} {kept}")
}

pub(super) fn span([least, greatest]: [f64; 2]) -> String {
    format!("{} – {}", number(least), number(greatest))
}
