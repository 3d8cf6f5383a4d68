//! `doorbell down`: the end of `doorbell up`.

use clap::Args;
use doorbell_server::kept;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Stop the server of `doorbell up`; its data stays
///
/// Fine when none is running.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  doorbell down")]
pub(crate) struct Down {}

impl Down {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let stopped = kept::down(&global.database.kept_options()).await?;
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
