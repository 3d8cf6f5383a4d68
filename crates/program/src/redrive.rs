//! `doorbell redrive`: back to work.

use std::time::Duration;

use clap::Args;
use doorbell::operate::{Action, Status};

use crate::{
    Global, duration,
    exit::{Exit, Failure},
    selection::{Selection, Verb},
};

const REDRIVE: Verb = Verb { name: "Redrive", done: "redriven" };

/// Put ended messages back: by id, or those that a filter names
///
/// Failed and cancelled messages become pending again, with all their retries, and remember that they were redriven;
/// completed ones, too, where --completed or --status completed says so. A filter without --status means failed ones. Prints the ids that were. Exit code 3 when none was: not there, or
/// not ended. A message that still waits for its retry has not ended: see `doorbell retry`.
#[derive(Args, Debug)]
#[command(after_help = "\
A filter shows how many messages it names and asks; without a terminal it needs --yes.

Examples:
  doorbell redrive 42
  doorbell redrive --target billing --reason-like 'connection refused%' --dry-run
  doorbell redrive --target billing --type order.placed --limit 10 --yes
  doorbell redrive --target billing --redriven false --spread 10m --yes    not again what failed again, and no flood
  doorbell redrive --status cancelled --target billing
  doorbell redrive --target billing --failed-since 02:10 --failed-until 02:40 --yes
  doorbell redrive --completed-by host-1-4242-5f0a9c --dry-run    what one consumer completed is to be done again

JSON: {\"redriven\": [ID, …]}, or \"would_be_redriven\" with --dry-run.")]
pub(crate) struct Redrive {
    /// Also those of the ids that are completed: what they had done is done again
    #[arg(long, conflicts_with = "filter")]
    completed: bool,

    /// Not all at once: they are due one after another within this time (10m; 30d at most)
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::between("1s", "30d"))]
    spread: Option<Duration>,

    #[command(flatten)]
    selection: Selection,
}

impl Redrive {
    pub(crate) async fn run(mut self, global: &Global) -> Result<Exit, Failure> {
        if !self.completed && !self.selection.ids.is_empty() {
            self.leave_completed(global).await?;
            if self.selection.ids.is_empty() {
                return Ok(Exit::NothingFound);
            }
        }
        self.selection.act(global, REDRIVE, Action::Redrive(self.spread)).await
    }

    /// What is done is not done again because of a wrong id.
    async fn leave_completed(&mut self, global: &Global) -> Result<(), Failure> {
        let operator = global.database.broker().await?.operator();
        let mut ids = Vec::new();
        for id in &self.selection.ids {
            let completed =
                operator.show(*id, false).await?.is_some_and(|m| m.row.status == Status::Completed && !m.archived);
            match completed {
                true => eprintln!("message {id} was not redriven: it is completed; with --completed it is done again"),
                false => ids.push(*id),
            }
        }
        self.selection.ids = ids;
        Ok(())
    }
}
