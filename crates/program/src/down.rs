//! `doorbell down`: the end of `doorbell up`.

use clap::Args;
use doorbell_server::kept;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
    up::for_applications,
};

/// Stop the server of `doorbell up`; its data stays
///
/// Fine when none is running.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  doorbell down")]
pub(crate) struct Down {}

impl Down {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let options = global.database.kept_options();
        let running = kept::find(&options).await?;
        let stopped = kept::down(&options).await?;
        if let Some(kept) = running {
            for_applications(kept.state_directory(), None)?;
        }
        if global.json {
            output::json(&json!({ "stopped": stopped }))?;
        } else if stopped {
            eprintln!("stopped; the data stays for the next `doorbell up`");
        } else {
            eprintln!("nothing to stop: no server is running");
        }
        Ok(Exit::Done)
    }
}
