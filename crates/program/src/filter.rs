//! The options that say which messages.

use std::time::Duration;

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use doorbell::{
    MessageId,
    operate::{Filter, Moment, Status},
};

use serde_json::json;

use crate::{duration, publish::header, timestamp};

/// Which messages; what is not given matches all.
#[derive(Args, Debug)]
#[group(id = "filter", multiple = true)]
pub(crate) struct FilterArgs {
    /// With this status
    #[arg(long, value_name = "STATUS", value_parser = statuses())]
    pub(crate) status: Option<Status>,
    /// Of this target
    #[arg(short, long)]
    pub(crate) target: Option<String>,
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
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    older_than: Option<Duration>,
    /// Published since then: 2026-03-01T02:10Z, 02:10 (UTC), or how long ago (30m)
    #[arg(long, value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    published_since: Option<Moment>,
    /// Published before then
    #[arg(long, value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    published_until: Option<Moment>,
    /// With this id or a greater one
    #[arg(long, value_name = "ID")]
    first_id: Option<MessageId>,
    /// With this id or a smaller one
    #[arg(long, value_name = "ID")]
    last_id: Option<MessageId>,
    /// Last changed since then; of failed ones, when they failed: 2026-03-01T02:10Z, 02:10 (UTC), or how long ago (30m)
    #[arg(long, visible_alias = "failed-since", value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Last changed before then
    #[arg(long, visible_alias = "failed-until", value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    until: Option<Moment>,
    /// With this ordering key
    #[arg(long, value_name = "KEY")]
    ordering_key: Option<String>,
    /// With this dedup key
    #[arg(long, value_name = "KEY")]
    dedup_key: Option<String>,
    /// With this header; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Whose payload this SQL/JSON path predicate is true of: '$.order == 7'
    #[arg(long = "where", value_name = "PREDICATE")]
    payload: Option<String>,
    /// That this owner completed, as far as the audit log goes back
    #[arg(long, value_name = "OWNER")]
    pub(crate) completed_by: Option<String>,
    /// That were put back before, and ended again (true), or never were (false)
    #[arg(long, value_name = "BOOL")]
    redriven: Option<bool>,
}

fn statuses() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(Status::ALL.map(Status::as_str)).try_map(|word| word.parse::<Status>())
}

impl FilterArgs {
    /// Whether anything was given.
    pub(crate) fn names_something(&self) -> bool {
        let Filter { status, target, record_type, source, reason, older_than, changed_since, changed_until, .. } =
            self.filter();
        let texts = [&target, &record_type, &source, &reason, &self.ordering_key, &self.dedup_key, &self.payload];
        status.is_some()
            || older_than.is_some()
            || changed_since.or(changed_until).is_some()
            || texts.iter().any(|text| text.is_some())
            || self.published_since.or(self.published_until).is_some()
            || self.first_id.or(self.last_id).is_some()
            || !self.headers.is_empty()
            || self.completed_by.is_some()
            || self.redriven.is_some()
    }

    /// The library's filter.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            status: self.status,
            target: self.target.clone(),
            record_type: self.record_type.clone(),
            source: self.source.clone(),
            reason: self.reason_like.clone(),
            older_than: self.older_than,
            published_since: self.published_since,
            published_until: self.published_until,
            first_id: self.first_id,
            last_id: self.last_id,
            changed_since: self.since,
            changed_until: self.until,
            ordering_key: self.ordering_key.clone(),
            dedup_key: self.dedup_key.clone(),
            headers: (!self.headers.is_empty()).then(|| {
                let headers = self.headers.iter().map(|(name, value)| (name.clone(), json!(value)));
                serde_json::Value::Object(headers.collect()).to_string()
            }),
            payload: self.payload.clone(),
            completed_by: self.completed_by.clone(),
            redriven: self.redriven,
        }
    }
}
