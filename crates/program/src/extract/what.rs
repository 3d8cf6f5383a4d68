//! What an extract reads, and for whom.

use clap::{ArgGroup, Args};
use doorbell::operate::{Extract as Wanted, ExtractFrom, Watermark};

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
}

impl What {
    pub(super) fn wanted(self, watermark: Option<Watermark>) -> Wanted {
        let Self { name, target, table, query, key, record_type, source } = self;
        let from = match (table, query) {
            (Some(table), _) => ExtractFrom::Table(table),
            (None, query) => ExtractFrom::Query(query.unwrap_or_default()),
        };
        Wanted { key, watermark, record_type, source: Some(source), ..Wanted::new(name, target, from) }
    }
}
