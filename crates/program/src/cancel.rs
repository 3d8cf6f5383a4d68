//! `doorbell cancel`: never mind.

use clap::Args;
use doorbell::operate::Action;

use crate::{
    Global,
    exit::{Exit, Failure},
    selection::{Selection, Verb},
};

const CANCEL: Verb = Verb { name: "Cancel", done: "cancelled" };

/// Cancel messages that have not ended: by id, or those that a filter names
///
/// Prints the ids that were. One that is being handled right now is cancelled too: its consumer finds out when it is done.
/// Exit code 3 when none was: not there, or ended already.
#[derive(Args, Debug)]
#[command(after_help = "\
A filter shows how many messages it names and asks; without a terminal it needs --yes.

Examples:
  doorbell cancel 42 43 --reason 'customer withdrew'
  doorbell cancel --target billing --older-than 2d --dry-run
  doorbell cancel --target billing --status pending --yes
  doorbell redrive 42                                         to undo it

JSON: {\"cancelled\": [ID, …]}, or \"would_be_cancelled\" with --dry-run.")]
pub(crate) struct Cancel {
    #[command(flatten)]
    selection: Selection,

    /// Kept with the messages
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Cancel {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        self.selection.act(global, CANCEL, Action::Cancel(self.reason)).await
    }
}
