//! What the view remembers: the last sample, and a line of the ones before it.

use std::collections::VecDeque;

use super::sample::Sample;

/// More than any terminal is wide.
const KEPT_MAX: usize = 500;

/// The samples of a session.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) last: Option<Sample>,
    /// Completed messages per second, oldest first.
    pub(super) completed: VecDeque<u64>,
    /// Median latency in microseconds, oldest first; 0 where nothing completed.
    pub(super) latency: VecDeque<u64>,
    /// Why there is no newer sample.
    pub(super) trouble: Option<String>,
}

impl History {
    pub(super) fn push(&mut self, sample: Sample) {
        keep(&mut self.completed, sample.per_second(sample.total().completed).round() as u64);
        keep(&mut self.latency, sample.latency(0.5).map_or(0, |latency| latency.as_micros() as u64));
        self.last = Some(sample);
        self.trouble = None;
    }

    pub(super) fn unreachable(&mut self, why: String) {
        self.trouble = Some(why);
    }
}

fn keep(line: &mut VecDeque<u64>, value: u64) {
    line.push_back(value);
    if line.len() > KEPT_MAX {
        line.pop_front();
    }
}
