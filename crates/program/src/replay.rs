//! `doorbell replay`: once more, from the beginning.

use clap::Args;
use doorbell::operate::{Moment, Replay as Wanted};
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    names, output, timestamp,
};

/// Publish again what was handled: copies of completed messages, from the table and the archive
///
/// Oldest first, with a header \"replayed\"; the old messages stay what they are. Of a topic the copies go to all who are
/// subscribed now, with --to to one target. What failed is no history: see `doorbell redrive`. Exit code 3 when there is none.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell replay orders --since 7d --to warehouse --dry-run
  doorbell replay orders --since 2026-03-01T02:10Z --until 2026-03-01T04:00Z --type 'order.#'

JSON: {\"replayed\": COUNT}, or \"would_be_replayed\" with --dry-run.")]
pub(crate) struct Replay {
    /// Whose messages
    target: String,

    /// Where the copies go
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,

    /// Published since then: 2026-03-01T02:10Z, 02:10 (UTC), or how long ago (7d)
    #[arg(long, value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    since: Option<Moment>,

    /// Published before then
    #[arg(long, value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    until: Option<Moment>,

    /// Of this record type: a name, or words between dots, where * is one word and # any number; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,

    /// From this source; may be repeated
    #[arg(short, long = "source", value_name = "SOURCE")]
    sources: Vec<String>,

    /// Say how many there are, and copy none
    #[arg(long)]
    dry_run: bool,
}

impl Replay {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let Self { target, to, since, until, types, sources, dry_run } = self;
        let wanted = Wanted { target, to, since, until, types, sources, dry_run };
        let count = broker.operator().replay(&wanted).await?;
        let done = if dry_run { "would_be_replayed" } else { "replayed" };
        if global.json {
            output::json(&json!({ done: count }))?;
        } else {
            eprintln!("{count} messages {}", done.replace('_', " "));
        }
        if count == 0 && !global.json {
            names::is_unknown(&broker, Some(&wanted.target)).await?;
        }
        Ok(if count == 0 { Exit::NothingFound } else { Exit::Done })
    }
}
