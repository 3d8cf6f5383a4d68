//! Events of CloudEvents 1.0 as messages; docs/cloudevents.md has the mapping.

use std::collections::BTreeMap;

use doorbell::Message;
use serde_json::value::RawValue;

use super::lines::not_json;
use crate::exit::{Exit, Failure};

/// What is no header of the message.
const MAPPED: [&str; 7] = ["specversion", "id", "source", "type", "data", "datacontenttype", "partitionkey"];

/// The message of an event in its JSON format for this target, and the application that it comes from.
pub(super) fn read(target: &str, line: &str) -> Result<(String, Message), Failure> {
    let mut event: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line.trim())
        .map_err(|error| if error.is_data() { wrong("it is no object") } else { not_json(&error) })?;
    let attribute = |name: &str| text(event.get(name)?).filter(|text| !text.is_empty());
    let required = |name: &str| attribute(name).ok_or_else(|| wrong(&format!("{name} is missing")));
    let version = required("specversion")?;
    if version != "1.0" {
        return Err(wrong(&format!("specversion is {version:?}")));
    }
    let (id, source, record_type) = (required("id")?, required("source")?, required("type")?);
    if event.contains_key("data_base64") {
        return Err(wrong("data_base64 is binary, and a payload is JSON"));
    }
    if let Some(content) = attribute("datacontenttype").filter(|content| !is_json(content)) {
        return Err(wrong(&format!("datacontenttype is {content:?}, and a payload is JSON")));
    }
    let key = attribute("partitionkey");
    let data = event.remove("data").unwrap_or_else(|| RawValue::NULL.to_owned());
    let mut message = Message::from_raw(target, record_type, data).dedup_key(id);
    message = key.into_iter().fold(message, Message::ordering_key);
    for (name, value) in event.iter().filter(|(name, _)| !MAPPED.contains(&name.as_str())) {
        if let Some(value) = text(value) {
            message = message.header(name, value);
        }
    }
    Ok((source, message))
}

/// An attribute as text, whatever type it has; nothing where it is null.
fn text(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        written => Some(serde_json::from_str(written).unwrap_or_else(|_| written.to_owned())),
    }
}

/// `application/json`, or a type that says that it is written as that: `application/geo+json; charset=utf-8`.
fn is_json(content: &str) -> bool {
    let kind = content.split(';').next().unwrap_or_default().trim();
    kind.strip_prefix("application/").is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
}

fn wrong(what: &str) -> Failure {
    Failure::new(Exit::BadData, format!("not an event of CloudEvents 1.0: {what}"))
}
