//! `doorbell up`: a server to develop against.

use clap::Args;
use doorbell::Broker;
use doorbell_server::kept;
use serde_json::json;

use crate::{
    Global,
    consent::consent,
    exit::{Exit, Failure},
    output,
};

/// Start a PostgreSQL of your own that stays, with the schema in it
///
/// Its data survives restarts. It listens on no port: only you can reach it. Running it again finds the same server.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell up
  export DATABASE_URL=\"$(doorbell up)\"
  psql \"$(doorbell up)\" -c 'select * from integration.stats'
  doorbell down                                   stop it; the data stays")]
pub(crate) struct Up {
    /// Fetch PostgreSQL without asking where none is installed (or set DOORBELL_FETCH_PG=1)
    #[arg(long)]
    yes: bool,
}

impl Up {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let options = kept::KeptOptions { consent: consent(self.yes), ..global.database.kept_options() };
        let kept = kept::up(&options).await?;
        let connection_string = kept.uri("postgres");
        let broker = Broker::connect(&connection_string).await?;
        let schema_version = broker.migrate().await?.version;
        broker.close().await;
        if global.json {
            output::json(&json!({
                "connection_string": connection_string,
                "version": kept.version(),
                "pid": kept.pid(),
                "state_directory": kept.state_directory(),
                "schema_version": schema_version,
            }))?;
            return Ok(Exit::Done);
        }
        eprintln!(
            "PostgreSQL {} is up (process {}), in {}",
            kept.version(),
            kept.pid(),
            kept.state_directory().display()
        );
        // They go where the environment says, if it says anything.
        match global.database.is_chosen() {
            true => {
                eprintln!("The commands of doorbell go where DATABASE_URL or PG… point; any program reaches it so:")
            }
            false => eprintln!("The commands of doorbell find it by themselves; other programs so, as DATABASE_URL:"),
        }
        output::line(&connection_string)?;
        eprintln!("\nTry:");
        eprintln!("  doorbell publish billing --source shop --type order.placed --data '{{\"order\": 7}}'");
        eprintln!("  doorbell peek billing");
        eprintln!("  doorbell consume billing --exec cat");
        eprintln!("  psql {}", shell_words::quote(&connection_string));
        eprintln!("Stop it with: doorbell down");
        Ok(Exit::Done)
    }
}
