//! `doorbell move`: to whom they were meant.

use clap::Args;
use doorbell::operate::Action;

use crate::{
    Global,
    exit::{Exit, Failure},
    names,
    selection::{Selection, Verb},
};

const MOVE: Verb = Verb { name: "Move", done: "moved" };

/// Send messages to another target: by id, or those that a filter names
///
/// Pending and scheduled messages wait there as they did, failed and cancelled ones stay what they are until they are
/// redriven; what is being handled or is completed stays where it is. A filter without --status means pending and scheduled
/// ones. Prints the ids that were moved; the audit log has whose they were. Exit code 3 when none was.
#[derive(Args, Debug)]
#[command(after_help = "\
A filter shows how many messages it names and asks; without a terminal it needs --yes.

Examples:
  doorbell move --to billing 42 43
  doorbell move --to billing --target biling --dry-run
  doorbell move --to billing --target biling --status failed --yes

JSON: {\"moved\": [ID, …]}, or \"would_be_moved\" with --dry-run.")]
pub(crate) struct Move {
    /// The target that they are sent to
    #[arg(long, value_name = "TARGET")]
    to: String,

    /// It may be one that nothing knows yet
    #[arg(long)]
    new: bool,

    #[command(flatten)]
    selection: Selection,
}

impl Move {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        names::must_be_known(&global.database.broker().await?, &self.to, self.new).await?;
        self.selection.act(global, MOVE, Action::MoveTo(self.to)).await
    }
}
