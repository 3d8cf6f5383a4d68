//! The processes that consume.

use std::time::Duration;

use askama::Template;
use doorbell::{operate::ProcessRow, written::duration};

use crate::{
    page::written,
    words::{self, Time, time},
};

/// Who lives beats more often: that changes no line.
const BEATS: Duration = Duration::from_secs(15);

/// A process.
pub(crate) struct Process {
    pub(crate) owner: String,
    pub(crate) place: String,
    pub(crate) program: String,
    pub(crate) targets: Vec<String>,
    pub(crate) in_hand: String,
    pub(crate) has_any: bool,
    pub(crate) beat: String,
    pub(crate) started: Time,
    pub(crate) alive: bool,
}

#[derive(Template)]
#[template(path = "consumer_row.html")]
struct RowPart {
    process: Process,
    act: bool,
}

/// The lines of the page, by owner.
pub(crate) fn rows(processes: &[ProcessRow], act: bool) -> Vec<(String, String)> {
    processes.iter().map(|row| (row.owner.clone(), written(&RowPart { process: Process::from(row), act }))).collect()
}

impl From<&ProcessRow> for Process {
    fn from(row: &ProcessRow) -> Self {
        let age = Duration::try_from_secs_f64(row.beat_age_seconds).unwrap_or_default();
        Self {
            targets: row.target_names(),
            place: format!("{}, process {}", row.host, row.pid),
            program: format!("{} {}", row.application, row.version),
            in_hand: words::count(row.processing),
            has_any: row.processing > 0,
            beat: if age < BEATS { "just now".to_owned() } else { format!("{} ago", duration::coarse(age)) },
            started: time(row.started_at),
            alive: row.alive,
            owner: row.owner.clone(),
        }
    }
}
