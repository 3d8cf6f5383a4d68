//! The options that say which messages.

use std::time::Duration;

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use doorbell::operate::{Filter, Status};

use crate::duration;

/// Which messages; what is not given matches all.
#[derive(Args, Debug)]
#[group(id = "filter", multiple = true)]
pub(crate) struct FilterArgs {
    /// With this status
    #[arg(long, value_name = "STATUS", value_parser = statuses())]
    pub(crate) status: Option<Status>,
    /// Of this target
    #[arg(short, long)]
    target: Option<String>,
    /// Of this record type
    #[arg(long = "type", value_name = "TYPE")]
    record_type: Option<String>,
    /// From this source
    #[arg(short, long)]
    source: Option<String>,
    /// Whose reason (the last error message) matches this SQL LIKE pattern
    #[arg(long, value_name = "PATTERN")]
    reason_like: Option<String>,
    /// Published longer ago than this (5m, 1h30m, 2d)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    older_than: Option<Duration>,
}

fn statuses() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(Status::ALL.map(Status::as_str)).try_map(|word| word.parse::<Status>())
}

impl FilterArgs {
    /// The library's filter.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            status: self.status,
            target: self.target.clone(),
            record_type: self.record_type.clone(),
            source: self.source.clone(),
            reason: self.reason_like.clone(),
            older_than: self.older_than,
        }
    }
}
