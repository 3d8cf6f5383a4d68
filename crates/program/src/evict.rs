//! `doorbell evict`: a process is to let go.

use clap::Args;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Take from a process all that it has in hand
///
/// For one that hangs, or works on what it should not. Its messages are pending again, with no retry used. It finds out at its
/// next beat, stops those handlers (their programs are ended), and goes on under a new name: to keep it from taking more,
/// pause its targets or stop it. Exit code 3 when nobody has that name.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell processes                      who there is
  doorbell evict host-1-4242-5f0a9c

JSON: {\"owner\", \"put_back\"}.")]
pub(crate) struct Evict {
    /// The owner, as `doorbell processes` and `doorbell explain` name it
    owner: String,
}

impl Evict {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let Some(count) = global.database.broker().await?.operator().evict(&self.owner).await? else {
            let why = format!("nobody is registered as {} or has messages under that name", self.owner);
            return Err(Failure::new(Exit::NothingFound, why));
        };
        match global.json {
            true => output::json(&json!({ "owner": self.owner, "put_back": count }))?,
            false => {
                output::line(format_args!("{count} messages of {} were put back", output::printable(&self.owner)))?
            }
        }
        Ok(Exit::Done)
    }
}
