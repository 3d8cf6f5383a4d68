//! Which database a command works on.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use doorbell::{Broker, BrokerConfig, Settings, migrate::Schema};
use doorbell_server::kept::{self, KeptOptions};

use crate::{
    exit::{Exit, Failure},
    up,
};

const NOTHING_CHOSEN: &str = "no database is chosen, and no server of `doorbell up` is running
  to start one here:    doorbell up
  or to use your own:   export DATABASE_URL=postgres://user@host/database
  or for one command:   doorbell --database-url postgres://user@host/database …";

/// The database, for every command that needs one.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct DatabaseArgs {
    /// The database, as a libpq URI or key=value string; ps shows it to everybody on this machine, so a password is better in
    /// DATABASE_URL or a password file [default: see `doorbell --help`]
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,

    /// The schema that holds the installation [default: integration]
    #[arg(long, global = true, value_name = "NAME", env = "DOORBELL_SCHEMA")]
    schema: Option<Schema>,

    /// Where `doorbell up` keeps its server
    #[arg(long, global = true, value_name = "DIRECTORY", env = "DOORBELL_STATE_DIRECTORY")]
    state_directory: Option<PathBuf>,
}

impl DatabaseArgs {
    /// Connects.
    pub(crate) async fn broker(&self) -> Result<Broker, Failure> {
        self.broker_with(config()).await
    }

    /// Connects with a configuration of its own.
    pub(crate) async fn broker_with(&self, config: BrokerConfig) -> Result<Broker, Failure> {
        let settings = self.settings().await?.with_schema(self.schema()).fallback_application_name(actor());
        Ok(Broker::with_config(settings, config).await?)
    }

    /// The schema that the command line or the environment names, else the default.
    pub(crate) fn schema(&self) -> Schema {
        self.schema.clone().unwrap_or_default()
    }

    /// The database that the command line names, and nothing else does.
    pub(crate) fn named(&self) -> Option<&str> {
        self.database_url.as_deref()
    }

    pub(crate) fn kept_options(&self) -> KeptOptions {
        KeptOptions { state_directory: self.state_directory.clone(), ..KeptOptions::default() }
    }

    /// Whether the command line or the environment names a database, so that no server of `doorbell up` is looked for.
    pub(crate) fn is_chosen(&self) -> bool {
        self.database_url.is_some() || Settings::env_chooses()
    }

    async fn settings(&self) -> Result<Settings, Failure> {
        if let Some(url) = &self.database_url {
            return Ok(Settings::parse(url)?);
        }
        if self.is_chosen() {
            return Ok(Settings::from_env()?);
        }
        match kept::find(&self.kept_options()).await? {
            Some(kept) => Ok(Settings::parse(&kept.uri(up::COMMANDS, "postgres"))?),
            None => Err(Failure::new(Exit::Unreachable, NOTHING_CHOSEN)),
        }
    }
}

/// As the library has it, but for a person who waits: a publish that fails is given up sooner.
pub(crate) fn config() -> BrokerConfig {
    BrokerConfig { publish_within: Duration::from_secs(10), ..BrokerConfig::default() }
}

/// Who acts, as the audit log and those who ask why a target is paused see it.
fn actor() -> String {
    match whoami::username() {
        Ok(user) => format!("doorbell ({user})"),
        Err(_) => "doorbell".to_owned(),
    }
}
