//! Filters as addresses carry them: by the names that the options of the program have.

use axum::extract::Query;
use doorbell::{
    MessageId,
    operate::Filter,
    written::{duration, shell::quoted, timestamp},
};

use super::words::in_address;

/// The names, in the order of the form.
pub(super) const NAMES: [&str; 18] = [
    "status",
    "target",
    "type",
    "source",
    "reason-like",
    "since",
    "until",
    "published-since",
    "published-until",
    "older-than",
    "first-id",
    "last-id",
    "ordering-key",
    "dedup-key",
    "header",
    "where",
    "completed-by",
    "redriven",
];

/// What an address says, of what is known: names and values that are not empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs(Vec<(&'static str, String)>);

impl Pairs {
    pub(super) fn of(query: Vec<(String, String)>) -> Self {
        let known = |(name, value): (String, String)| {
            let name = NAMES.into_iter().find(|known| *known == name)?;
            let value = value.trim().to_owned();
            (!value.is_empty()).then_some((name, value))
        };
        Self(query.into_iter().filter_map(known).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// What a field of the form holds.
    pub(super) fn value(&self, name: &str) -> &str {
        self.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        self.value(name) == value
    }

    /// Whether it goes by what the form has out of sight.
    pub(super) fn has_more(&self) -> bool {
        self.iter().any(|(name, _)| !matches!(name, "status" | "target" | "type" | "source" | "reason-like"))
    }

    /// With another value of one field.
    pub(super) fn with(mut self, name: &'static str, value: String) -> Self {
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value));
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it goes by what payloads or headers hold.
    pub(super) fn goes_by_contents(&self) -> bool {
        self.iter().any(|(name, _)| matches!(name, "header" | "where"))
    }

    /// What [`address`](Self::address) wrote; nothing, where that is no address.
    pub(super) fn read(address: &str) -> Self {
        let query = format!("/?{address}").parse().ok().and_then(|uri| Query::try_from_uri(&uri).ok());
        Self::of(query.map(|Query(pairs)| pairs).unwrap_or_default())
    }

    /// The same in an address.
    pub(super) fn address(&self) -> String {
        self.iter().map(|(name, value)| format!("{name}={}&", in_address(value))).collect()
    }

    /// The same on the command line.
    pub(super) fn command(&self, verb: &str) -> String {
        self.iter()
            .fold(format!("doorbell {verb}"), |command, (name, value)| format!("{command} --{name} {}", quoted(value)))
    }

    /// The library's filter; what is wrong is named by its field.
    pub(super) fn filter(&self) -> Result<Filter, String> {
        let mut filter = Filter::default();
        for (name, value) in self.iter() {
            set(&mut filter, name, value).map_err(|wrong| format!("{name}: {wrong}"))?;
        }
        Ok(filter)
    }
}

fn set(filter: &mut Filter, name: &str, value: &str) -> Result<(), String> {
    let text = || Some(value.to_owned());
    let moment = || timestamp::parse(value).map(Some);
    let id = || value.parse::<MessageId>().map(Some).map_err(|_| format!("{value:?} is no id"));
    match name {
        "status" => filter.status = Some(value.parse().map_err(|error: doorbell::Error| error.to_string())?),
        "target" => filter.target = text(),
        "type" => filter.record_type = text(),
        "source" => filter.source = text(),
        "reason-like" => filter.reason = text(),
        "since" => filter.changed_since = moment()?,
        "until" => filter.changed_until = moment()?,
        "published-since" => filter.published_since = moment()?,
        "published-until" => filter.published_until = moment()?,
        "older-than" => filter.older_than = Some(duration::parse(value)?),
        "first-id" => filter.first_id = id()?,
        "last-id" => filter.last_id = id()?,
        "ordering-key" => filter.ordering_key = text(),
        "dedup-key" => filter.dedup_key = text(),
        "header" => {
            let (name, value) = value.split_once('=').ok_or("write NAME=VALUE")?;
            filter.headers = Some(serde_json::json!({ name: value }).to_string());
        }
        "where" => filter.payload = text(),
        "redriven" => {
            let redriven = value.parse().map_err(|_| format!("{value:?} is neither true nor false"))?;
            filter.redriven = Some(redriven);
        }
        _ => filter.completed_by = text(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(of: &[(&str, &str)]) -> Pairs {
        Pairs::of(of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn an_address_says_what_a_command_would() {
        let given = pairs(&[("status", "failed"), ("target", "it's"), ("type", " "), ("x", "y"), ("since", "30m")]);
        assert_eq!(given.command("list"), r"doorbell list --status failed --target 'it'\''s' --since 30m");
        let filter = given.filter().unwrap();
        assert_eq!((filter.target.as_deref(), filter.record_type), (Some("it's"), None));
        assert!(filter.changed_since.is_some());
    }

    #[test]
    fn a_filter_within_a_field_is_read_as_it_was_written() {
        let given = pairs(&[("target", "a&b=c%d +ü"), ("reason-like", "%x\\%%"), ("status", "failed")]);
        assert_eq!(Pairs::read(&given.address()).0, given.0);
        for odd in ["", "target", "target=%", "target=%zz&&", "x=y"] {
            Pairs::read(odd);
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        for (name, value) in
            [("status", "dead"), ("since", "soon"), ("first-id", "x"), ("header", "x"), ("redriven", "x")]
        {
            let wrong = pairs(&[(name, value)]).filter().unwrap_err();
            assert!(wrong.starts_with(name), "{wrong}");
        }
        for name in NAMES {
            assert!(!pairs(&[(name, "1")]).is_empty(), "{name}");
        }
    }
}
