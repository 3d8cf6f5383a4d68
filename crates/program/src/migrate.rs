//! `doorbell migrate`: the schema.

mod adopt;

use clap::Args;
use doorbell::migrate;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Bring the schema of the database up to this version
///
/// Safe to run by many processes at once and as often as you like: what is there is left alone.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell migrate
  doorbell migrate --check || echo 'the schema is behind'     exit code 4 when it is
  doorbell migrate --sql > schema.sql                         for tools of your own; needs no database
  doorbell migrate --adopt --dry-run                          what would become of tables that are there already

JSON: {\"version\", \"applied\": [STEP, …]}; with --check {\"version\", \"pending\": [STEP, …], \"is_occupied\"}; is_occupied \
says that tables are there that Doorbell did not make.")]
pub(crate) struct Migrate {
    /// Change nothing; exit with 4 and print what is missing when the schema is behind
    #[arg(long, conflicts_with = "sql")]
    check: bool,

    /// Print the whole schema as one SQL script instead
    #[arg(long)]
    sql: bool,

    #[command(flatten)]
    adopt: adopt::Args,
}

impl Migrate {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        if self.sql {
            output::line(migrate::script(&global.database.schema()).trim_end())?;
            return Ok(Exit::Done);
        }
        let broker = global.database.broker().await?;
        if self.adopt.is_asked() {
            return self.adopt.run(&broker, global.json).await;
        }
        if self.check {
            let status = broker.migration_status().await?;
            let exit = if status.pending.is_empty() { Exit::Done } else { Exit::CheckFailed };
            if global.json {
                let (version, pending, is_occupied) = (status.version, status.pending, status.is_occupied);
                output::json(&json!({ "version": version, "pending": pending, "is_occupied": is_occupied }))?;
                return Ok(exit);
            }
            status.pending.iter().try_for_each(output::line)?;
            let run = if status.is_occupied { "doorbell migrate --adopt --dry-run" } else { "doorbell migrate" };
            match status.pending.len() {
                0 => eprintln!("the schema is up to date, version {}", status.version),
                missing => eprintln!("the schema is at version {}, {missing} behind; run: {run}", status.version),
            }
            if status.is_occupied {
                eprintln!("there are tables that Doorbell did not make: they can be adopted, with their rows");
            }
            return Ok(exit);
        }
        adopt::report(&broker.migrate().await?, global.json)
    }
}
