//! `doorbell retry`: now.

use clap::Args;
use doorbell::operate::Action;

use crate::{
    Global,
    exit::{Exit, Failure},
    selection::{Selection, Verb},
};

const RETRY: Verb = Verb { name: "Retry", done: "retried" };

/// Try messages again now, instead of later or not at all
///
/// A scheduled message (in backoff, snoozed, or published with a delay) becomes pending at once and keeps the retries it has
/// used. A failed one is redriven: pending, with all its retries. That is what tells `retry` from `redrive`: redrive is for
/// messages that have ended, in whatever way, and begins their story anew; retry is for those that were to go on. Prints the
/// ids that were. Exit code 3 when none was.
#[derive(Args, Debug)]
#[command(after_help = "\
A filter shows how many messages it names and asks; without a terminal it needs --yes.

Examples:
  doorbell retry 42
  doorbell retry --target billing --status scheduled
  doorbell retry --target billing --reason-like 'connection refused%' --yes

JSON: {\"retried\": [ID, …]}, or \"would_be_retried\" with --dry-run.")]
pub(crate) struct Retry {
    #[command(flatten)]
    selection: Selection,
}

impl Retry {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        self.selection.act(global, RETRY, Action::Retry).await
    }
}
