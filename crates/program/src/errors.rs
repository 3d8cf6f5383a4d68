//! `doorbell errors`: what went wrong, how often, since when.

use clap::Args;
use doorbell::operate::ErrorGroup;
use serde::Serialize;

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    names, output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 8] = ["FAILED", "AGAIN", "RETRYING", "TARGET", "SINCE", "LAST", "EXAMPLE", "REASON LIKE"];

/// Show the reasons of failed messages, grouped by what is alike in them
///
/// Messages that failed for good (FAILED; AGAIN are those of them that had been redriven before), and those that wait for a retry (RETRYING). Numbers and ids in a reason become %,
/// so REASON LIKE is what list, redrive and retry take as --reason-like. SINCE and LAST are the ages of the first and last
/// failure of those that are there. Exit code 3 when there are none.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell errors
  doorbell errors --target billing --json | jq -r '.errors[0].reason_like'
  doorbell redrive --target billing --reason-like 'connection to % refused' --dry-run      put one group back

JSON: {\"errors\": [{\"target\", \"reason_like\", \"failed\", \"failed_again\", \"retrying\", \"since\", \"last_at\", \"example_id\"}]}.")]
pub(crate) struct Errors {
    /// Of this target
    #[arg(short, long)]
    target: Option<String>,

    /// At most so many groups
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl Errors {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let errors = broker.operator().errors(self.target.as_deref(), self.limit).await?;
        if global.json {
            output::json(&ErrorsJson { errors: errors.iter().map(ErrorJson::from).collect() })?;
        } else if !errors.is_empty() {
            output::table(&HEADINGS, &errors.iter().map(cells).collect::<Vec<_>>())?;
            if let Some((target, reason)) = errors.iter().find_map(|e| Some((&e.target, e.reason_like.as_ref()?))) {
                let (target, reason) = (shell_words::quote(target), shell_words::quote(reason));
                let redrive = format!("doorbell redrive --target {target} --reason-like {reason}");
                eprintln!("to put one group back: {}", output::printable(&redrive));
            }
        }
        if errors.iter().any(|group| !group.all_seen) {
            eprintln!("there are more: 100,000 failed messages and as many scheduled ones were looked at");
        }
        if errors.is_empty() {
            names::is_unknown(&broker, self.target.as_deref()).await?;
            eprintln!("no message has failed");
            return Ok(Exit::NothingFound);
        }
        Ok(Exit::Done)
    }
}

fn cells(group: &ErrorGroup) -> Vec<String> {
    vec![
        group.failed.to_string(),
        group.failed_again.to_string(),
        group.retrying.to_string(),
        group.target.clone(),
        duration::coarse(group.ages.0),
        duration::coarse(group.ages.1),
        group.example.to_string(),
        group.reason_like.clone().unwrap_or_else(|| "(no reason was given)".to_owned()),
    ]
}

#[derive(Serialize)]
struct ErrorsJson<'a> {
    errors: Vec<ErrorJson<'a>>,
}

#[derive(Serialize)]
struct ErrorJson<'a> {
    target: &'a str,
    reason_like: Option<&'a str>,
    failed: i64,
    failed_again: i64,
    retrying: i64,
    since: String,
    last_at: String,
    example_id: i64,
}

impl<'a> From<&'a ErrorGroup> for ErrorJson<'a> {
    fn from(group: &'a ErrorGroup) -> Self {
        Self {
            target: &group.target,
            reason_like: group.reason_like.as_deref(),
            failed: group.failed,
            failed_again: group.failed_again,
            retrying: group.retrying,
            since: rfc3339(group.since),
            last_at: rfc3339(group.last),
            example_id: group.example,
        }
    }
}
