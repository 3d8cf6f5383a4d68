//! `doorbell redrive`: back to work.

use clap::Args;
use doorbell::operate::Status;

use crate::{
    Global,
    exit::{Exit, Failure},
    selection::{Selection, Verb},
};

const REDRIVE: Verb = Verb {
    name: "Redrive",
    done: "redriven",
    from: &[Status::Failed, Status::Cancelled, Status::Completed],
    usually: &[Status::Failed],
};

/// Put ended messages back: by id, or those that a filter names
///
/// Failed, cancelled and completed messages become pending again, with all their retries, and remember that they were
/// redriven. A filter without --status means failed ones. Prints the ids that were. Exit code 3 when none was: not there, or
/// not ended. A message that still waits for its retry has not ended: see `doorbell retry`.
#[derive(Args, Debug)]
#[command(after_help = "\
A filter shows how many messages it names and asks; without a terminal it needs --yes.

Examples:
  doorbell redrive 42
  doorbell redrive --target billing --reason-like 'connection refused%' --dry-run
  doorbell redrive --target billing --type order.placed --limit 10 --yes
  doorbell redrive --status cancelled --target billing
  doorbell redrive --target billing --failed-since 02:10 --failed-until 02:40 --yes
  doorbell redrive --completed-by host-1-4242-5f0a9c --dry-run    what one consumer completed is to be done again

JSON: {\"redriven\": [ID, …]}, or \"would_be_redriven\" with --dry-run.")]
pub(crate) struct Redrive {
    #[command(flatten)]
    selection: Selection,
}

impl Redrive {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        self.selection.act(global, REDRIVE, async |broker, ids| broker.operator().redrive(ids).await).await
    }
}
