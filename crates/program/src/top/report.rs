//! One sample for programs, and for people whose stdout is not a terminal.

use std::{io::Result, time::Duration};

use serde_json::{Value, json};

use super::sample::Sample;
use crate::{duration, output, processes, targets};

const TARGETS: [&str; 11] = [
    "TARGET",
    "PUBLISHED/S",
    "COMPLETED/S",
    "RETRIED/S",
    "FAILED/S",
    "PENDING",
    "PROCESSING",
    "OLDEST PENDING",
    "PROCESSES",
    "WORKERS",
    "STATE",
];

/// Prints the sample.
pub(super) fn print(sample: &Sample, as_json: bool) -> Result<()> {
    if as_json {
        return output::json(&sample_json(sample));
    }
    output::line(latency(sample))?;
    output::table(&TARGETS, &target_rows(sample))
}

/// The latency in words.
pub(super) fn latency(sample: &Sample) -> String {
    match (sample.latency(0.5), sample.latency(0.95), sample.latency(0.99)) {
        (Some(p50), Some(p95), Some(p99)) => {
            format!("latency p50 {} p95 {} p99 {}", short(p50), short(p95), short(p99))
        }
        _ => "latency -".to_owned(),
    }
}

/// The cells of [`TARGETS`], a row per target.
pub(super) fn target_rows(sample: &Sample) -> Vec<Vec<String>> {
    let row = |target: &doorbell::operate::TargetState| {
        let stats = &target.stats;
        let counts = sample.of(&stats.target);
        let rates = [counts.published, counts.completed, counts.errored, counts.failed];
        let rates = rates.map(|count| format!("{:.0}", sample.per_second(count)));
        let waiting = [stats.pending, stats.processing];
        let oldest = stats.oldest_age().map_or_else(|| "-".to_owned(), duration::coarse);
        [stats.target.clone()]
            .into_iter()
            .chain(rates)
            .chain(waiting.map(|count| count.to_string()))
            .chain([oldest, target.processes.to_string(), target.workers.to_string(), targets::state(target)])
            .collect()
    };
    sample.targets.iter().map(row).collect()
}

fn short(latency: Duration) -> String {
    match latency.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.1}ms", seconds * 1000.0),
        _ => duration::coarse(latency),
    }
}

fn sample_json(sample: &Sample) -> Value {
    let targets: Vec<Value> = sample
        .targets
        .iter()
        .map(|target| {
            let counts = sample.of(&target.stats.target);
            let mut all = targets::target_json(target);
            for (name, count) in [
                ("published_per_second", counts.published),
                ("completed_per_second", counts.completed),
                ("errored_per_second", counts.errored),
                ("failed_per_second", counts.failed),
            ] {
                all[name] = json!(sample.per_second(count));
            }
            all
        })
        .collect();
    let ms = |share| sample.latency(share).map(|latency| latency.as_secs_f64() * 1000.0);
    let latency = ms(0.5)
        .map(|p50| json!({ "p50_ms": p50, "p95_ms": ms(0.95), "p99_ms": ms(0.99), "samples": sample.latencies.len() }));
    let processes: Vec<Value> = sample.processes.iter().map(processes::process_json).collect();
    json!({ "seconds": sample.took.as_secs_f64(), "latency": latency, "targets": targets, "processes": processes })
}
