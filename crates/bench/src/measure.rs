//! What a measurement is: figure and floor of the same run, in turns, as medians with their spread, and their ratio.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::{Map, Value};

/// Which way is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    #[default]
    Higher,
    Lower,
}

/// One figure beside its floor.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Case {
    pub case: String,
    /// The median of ours.
    pub figure: f64,
    /// The median of the floor, or of what else it is compared with.
    pub floor: f64,
    /// `figure / floor`.
    pub ratio: f64,
    pub unit: &'static str,
    pub better: Better,
    /// What the floor is.
    pub floor_is: String,
    pub samples: usize,
    /// Least and greatest.
    pub figure_range: [f64; 2],
    pub floor_range: [f64; 2],
    /// What the design promises of the ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached: Option<bool>,
    /// What else was seen, each with its unit in the name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub also: BTreeMap<String, f64>,
    /// Points to plot.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub series: BTreeMap<String, Vec<f64>>,
}

impl Case {
    /// From the samples of both sides.
    pub fn new(case: impl Into<String>, unit: &'static str, ours: &[f64], floor: &[f64]) -> Self {
        let (figure, floor_median) = (median(ours), median(floor));
        Self {
            case: case.into(),
            figure,
            floor: floor_median,
            ratio: figure / floor_median,
            unit,
            samples: ours.len(),
            figure_range: range(ours),
            floor_range: range(floor),
            ..Self::default()
        }
    }

    pub fn against(mut self, floor_is: impl Into<String>) -> Self {
        self.floor_is = floor_is.into();
        self
    }

    /// Less is better from here on.
    pub fn lower(mut self) -> Self {
        self.better = Better::Lower;
        self
    }

    /// What the ratio is to be: at least, or at most where lower is better.
    pub fn target(mut self, target: f64) -> Self {
        self.target = Some(target);
        self.reached = Some(match self.better {
            Better::Higher => self.ratio >= target,
            // A time of zero or less says that the clock was read too late, not that it was fast.
            Better::Lower => self.ratio > 0.0 && self.ratio <= target,
        });
        self
    }

    pub fn also(mut self, name: impl Into<String>, value: f64) -> Self {
        self.also.insert(name.into(), value);
        self
    }

    pub fn series(mut self, name: impl Into<String>, points: Vec<f64>) -> Self {
        self.series.insert(name.into(), points);
        self
    }
}

/// One scenario: its headline is the case that the design has a target for.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    pub scenario: &'static str,
    #[serde(flatten)]
    pub headline: Case,
    pub settings: Map<String, Value>,
    pub cases: Vec<Case>,
}

impl Scenario {
    /// The headline is the first of the cases with a target, else the first.
    pub fn new(scenario: &'static str, settings: Value, cases: Vec<Case>) -> Option<Self> {
        let headline = cases.iter().find(|case| case.target.is_some()).or(cases.first())?.clone();
        let headline = Case { series: BTreeMap::new(), ..headline };
        let settings = match settings {
            Value::Object(settings) => settings,
            _ => Map::new(),
        };
        Some(Self { scenario, headline, settings, cases })
    }
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How long one sample of a rate takes.
    pub window: Duration,
    /// How long samples of a latency are taken.
    pub latencies: Duration,
    /// How often floor and figure take turns.
    pub rounds: usize,
    /// How many messages a backlog to drain has.
    pub messages: u64,
    /// How many a deep backlog has.
    pub deep: u64,
    /// How many consumer processes at most.
    pub processes: usize,
    /// How many consumers in one process.
    pub consumers: usize,
}

/// A line of progress.
pub fn say(words: impl std::fmt::Display) {
    eprintln!("  {words}");
}

pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// Linear between the two samples next to it; not a number without samples.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = last as f64 * share;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

pub fn range(samples: &[f64]) -> [f64; 2] {
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    [least, samples.iter().copied().fold(f64::NEG_INFINITY, f64::max)]
}

pub fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

/// 12,345 or 12.3 or 0.123: three digits and more where they are whole.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    match value.abs() {
        0.0 => "0".to_owned(),
        1000.0.. => grouped(value.round() as i64),
        100.0..1000.0 => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn grouped(value: i64) -> String {
    let digits = value.abs().to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    format!("{}{}", if value < 0 { "-" } else { "" }, groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_medians_and_ranges_and_their_ratio() {
        let case = Case::new("x", "messages/s", &[90.0, 80.0, 100.0], &[100.0, 120.0, 80.0]).target(0.9);
        assert_eq!((case.figure, case.floor, case.ratio), (90.0, 100.0, 0.9));
        assert_eq!((case.figure_range, case.reached), ([80.0, 100.0], Some(true)));
        assert_eq!(Case::new("x", "ms", &[2.0], &[1.0]).lower().target(1.2).reached, Some(false));
    }

    #[test]
    fn quantiles_lie_between_samples() {
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.5), 2.5);
        assert_eq!(quantile(&[1.0], 0.99), 1.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn numbers_are_short() {
        let shown = [1_234_567.0, 999.6, 12.34, 0.1234, 0.0, f64::NAN].map(number);
        assert_eq!(shown, ["1,234,567", "1000", "12.3", "0.123", "0", "-"]);
    }
}
