//! `doorbell backlog`: what waits, of which kind, from whom.

use clap::Args;
use doorbell::operate::{BacklogRow, TargetStats};
use serde_json::json;

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    names, output,
    stats::report_end,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 6] = ["MESSAGES", "TARGET", "TYPE", "SOURCE", "STATUS", "OLDEST"];

/// Show what has not ended, by record type and source
///
/// Counts what is pending, scheduled and being processed by reading all of it. OLDEST is the age of the oldest of them. When
/// a backlog of more than a minute will have been handled, at the rate of the last five minutes, is said on stderr.
/// Exit code 3 when there is nothing.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell backlog
  doorbell backlog --target billing --json | jq '.backlog[] | select(.status == \"pending\")'

JSON: {\"backlog\": [{\"target\", \"type\", \"source\", \"status\", \"messages\", \"oldest_at\"}]}.")]
pub(crate) struct Backlog {
    /// Of this target
    #[arg(short, long)]
    target: Option<String>,

    /// At most so many lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl Backlog {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let rows = broker.operator().backlog(self.target.as_deref(), self.limit).await?;
        if global.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| {
                    json!({ "target": row.target, "type": row.record_type, "source": row.source, "status": row.status,
                            "messages": row.messages, "oldest_at": rfc3339(row.oldest_at) })
                })
                .collect();
            output::json(&json!({ "backlog": rows }))?;
        } else if !rows.is_empty() {
            output::table(&HEADINGS, &rows.iter().map(cells).collect::<Vec<_>>())?;
            let stats = broker.operator().targets().await?.into_iter().map(|target| target.stats);
            let is_meant = |stats: &TargetStats| self.target.as_ref().is_none_or(|target| *target == stats.target);
            stats.filter(is_meant).for_each(|stats| report_end(&stats));
        }
        if rows.is_empty() {
            names::is_unknown(&broker, self.target.as_deref()).await?;
            eprintln!("nothing waits");
            return Ok(Exit::NothingFound);
        }
        Ok(Exit::Done)
    }
}

fn cells(row: &BacklogRow) -> Vec<String> {
    vec![
        row.messages.to_string(),
        row.target.clone(),
        row.record_type.clone(),
        row.source.clone(),
        row.status.to_string(),
        duration::coarse(row.oldest_age),
    ]
}
