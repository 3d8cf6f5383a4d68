//! What an extract reads, and for whom.

use clap::{ArgGroup, Args};
use doorbell::{
    Settings,
    operate::{Extract as Wanted, ExtractFrom, ForeignDatabase, Watermark},
};

use crate::exit::Failure;

/// What both read.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("from").required(true).args(["table", "query"])))]
pub(super) struct What {
    /// Its name
    name: String,

    /// The application that the messages are for
    target: String,

    /// A table or view, as SQL names it
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,

    /// A SELECT, in which tables have their schemas' names
    #[arg(long, value_name = "SELECT", allow_hyphen_values = true)]
    query: Option<String>,

    /// A column that tells rows apart; may be repeated [default: the table's primary key]
    #[arg(long = "key", value_name = "COLUMN")]
    key: Vec<String>,

    /// What the record type begins with, before .read [default: schema and table, or the name]
    #[arg(long = "type", value_name = "TYPE")]
    record_type: Option<String>,

    /// The application that the messages come from
    #[arg(long, value_name = "APP", default_value = "extract")]
    source: String,

    /// The database that is read, where it is another: this command reads it then, in the name of the role that logs in
    /// there. Nothing of it is stored
    #[arg(long, value_name = "URL", env = "DOORBELL_SOURCE_URL", hide_env_values = true)]
    source_url: Option<String>,
}

impl What {
    /// The other database, if it is one.
    pub(super) fn foreign(&self) -> Result<Option<ForeignDatabase>, Failure> {
        let Some(url) = self.source_url.as_deref().filter(|url| !url.trim().is_empty()) else { return Ok(None) };
        let settings = Settings::parse(url).map_err(|error| Failure::from(error).context("--source-url"))?;
        Ok(Some(ForeignDatabase::new(settings)))
    }

    pub(super) fn wanted(self, watermark: Option<Watermark>) -> Wanted {
        let Self { name, target, table, query, key, record_type, source, source_url: _ } = self;
        let from = match (table, query) {
            (Some(table), _) => ExtractFrom::Table(table),
            (None, query) => ExtractFrom::Query(query.unwrap_or_default()),
        };
        Wanted { key, watermark, record_type, source: Some(source), ..Wanted::new(name, target, from) }
    }
}
