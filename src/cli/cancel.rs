//! `doorbell cancel`: never mind.

use clap::Args;
use doorbell::MessageId;

use super::{
    Global,
    exit::{Exit, Failure},
    redrive,
};

/// Cancel messages that have not ended
///
/// Prints the ids that were. One that is being handled right now is cancelled too: its consumer finds out when it is done.
/// Exit code 3 when none was: not there, or ended already.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell cancel 42 43 --reason 'customer withdrew'
  doorbell redrive 42                                         to undo it")]
pub(crate) struct Cancel {
    /// The messages
    #[arg(required = true, value_name = "ID")]
    ids: Vec<MessageId>,

    /// Kept with the messages
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Cancel {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let cancelled = broker.cancel(&self.ids, self.reason.as_deref()).await?;
        redrive::print(global.json, "cancelled", &cancelled, &self.ids)
    }
}
