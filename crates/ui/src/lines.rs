//! Targets and messages as lines of tables.

use std::collections::BTreeMap;

use askama::Template;
use doorbell::{
    MessageId,
    operate::{MessageRow, TargetState},
    written::duration,
};

use super::{
    page::written,
    spark::Spark,
    words::{self, Time, time},
};

/// A target.
pub(super) struct TargetLine {
    pub(super) name: String,
    pub(super) pending: String,
    pub(super) oldest: String,
    pub(super) published: String,
    pub(super) completed: String,
    pub(super) scheduled: String,
    pub(super) processing: String,
    pub(super) failed: String,
    pub(super) has_failed: bool,
    pub(super) consumers: String,
    /// In a word.
    pub(super) state: String,
    /// `stopped`, `uneasy` or `well`.
    pub(super) mood: &'static str,
    /// Its last hour, where that is shown.
    pub(super) spark: Option<Spark>,
}

#[derive(Template)]
#[template(path = "target_row.html")]
struct RowPart<'a> {
    target: &'a TargetLine,
}

impl TargetLine {
    /// Its line of the table.
    pub(super) fn row(&self) -> String {
        written(&RowPart { target: self })
    }

    /// With its picture, or an empty one.
    pub(super) fn with(self, pictures: &BTreeMap<String, Spark>) -> Self {
        Self { spark: Some(pictures.get(&self.name).cloned().unwrap_or_default()), ..self }
    }
}

impl From<&TargetState> for TargetLine {
    fn from(target: &TargetState) -> Self {
        let stats = &target.stats;
        let codes: Vec<String> = target.closed_gates.iter().map(|(code, _)| code.replace('_', " ")).collect();
        let waiting = stats.pending + stats.scheduled > 0;
        let (state, mood) = match &codes[..] {
            [] if target.is_abandoned() => ("nobody consumes".to_owned(), "stopped"),
            [] if target.set_aside > 0 => (format!("{} set aside", target.set_aside), "stopped"),
            [] if stats.failed > 0 => ("open".to_owned(), "uneasy"),
            [] => ("open".to_owned(), "well"),
            codes => (codes.join(", "), if waiting { "stopped" } else { "uneasy" }),
        };
        let workers = if target.workers > 0 { format!(" ({})", target.workers) } else { String::new() };
        Self {
            name: stats.target.clone(),
            pending: words::count(stats.pending),
            oldest: words::age(stats.oldest_age()),
            published: words::rate(stats.published_per_second),
            completed: words::rate(stats.completed_per_second),
            scheduled: words::count(stats.scheduled),
            processing: words::count(stats.processing),
            failed: words::count(stats.failed),
            has_failed: stats.failed > 0,
            consumers: format!("{}{workers}", target.processes),
            state,
            mood,
            spark: None,
        }
    }
}

/// A message.
pub(super) struct MessageLine {
    pub(super) id: MessageId,
    pub(super) target: String,
    pub(super) record_type: String,
    pub(super) source: String,
    pub(super) status: &'static str,
    pub(super) attempt: i32,
    pub(super) created: Time,
    pub(super) reason: String,
}

impl From<&MessageRow> for MessageLine {
    fn from(row: &MessageRow) -> Self {
        Self {
            id: row.id,
            target: row.target.clone(),
            record_type: row.record_type.clone(),
            source: row.source.clone(),
            status: row.status.as_str(),
            attempt: row.attempt,
            created: time(row.created_at),
            reason: row.reason.clone().unwrap_or_default(),
        }
    }
}

/// How long, for a sentence.
pub(super) fn for_long(age: Option<std::time::Duration>) -> String {
    age.map(|age| format!(", the oldest for {}", duration::coarse(age))).unwrap_or_default()
}
