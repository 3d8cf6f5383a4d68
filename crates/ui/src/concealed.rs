//! What of payloads is not shown.

use std::collections::BTreeMap;

use doorbell::{Error, Result};
use serde_json::value::{RawValue, to_raw_value};

const INSTEAD: &str = "(redacted)";

/// Paths of names into payloads.
pub(super) struct Concealed(Vec<Vec<String>>);

impl Concealed {
    /// Reads paths with points between names.
    pub(super) fn read(paths: &[String]) -> Result<Self> {
        let path = |text: &String| {
            let names: Vec<String> = text.trim_start_matches("$.").split('.').map(str::to_owned).collect();
            match names.iter().any(String::is_empty) {
                true => {
                    Err(Error::config(format!("{text:?} is no path: write names with points between, card.number")))
                }
                false => Ok(names),
            }
        };
        Ok(Self(paths.iter().map(path).collect::<Result<_>>()?))
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// The same JSON, without what is concealed. What stays is as it was written.
    pub(super) fn applied(&self, json: &str) -> String {
        self.0.iter().fold(json.to_owned(), |json, path| without(&json, path))
    }
}

/// In arrays of each element.
fn without(json: &str, path: &[String]) -> String {
    let Some((name, rest)) = path.split_first() else { return format!("{INSTEAD:?}") };
    if let Ok(elements) = serde_json::from_str::<Vec<Box<RawValue>>>(json) {
        let elements: Vec<String> = elements.iter().map(|element| without(element.get(), path)).collect();
        return format!("[{}]", elements.join(", "));
    }
    let Ok(mut members) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(json) else { return json.to_owned() };
    if let Some(member) = members.get_mut(name)
        && let Ok(changed) = RawValue::from_string(without(member.get(), rest))
    {
        *member = changed;
    } else {
        return json.to_owned();
    }
    to_raw_value(&members).map_or_else(|_| format!("{INSTEAD:?}"), |value| value.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_names_is_not_shown_and_the_rest_stays_as_it_was() {
        let concealed = Concealed::read(&["card.number".to_owned(), "$.pin".to_owned()]).unwrap();
        let shown = |json: &str| concealed.applied(json);
        assert_eq!(
            shown(r#"{"card": {"number": {"a": "4111"}, "n": 1e400}, "pin": 1}"#),
            r#"{"card":{"n":1e400,"number":"(redacted)"},"pin":"(redacted)"}"#
        );
        let each = shown(r#"[{"card": [{"number": 1}, {"number": 2}]}, 7]"#);
        assert!(!each.contains('1') && !each.contains('2') && each.ends_with(", 7]"), "{each}");
        for same in ["null", "[]", r#"{"card":4111}"#, r#""card.number""#] {
            assert_eq!(shown(same), same);
        }
        assert!(Concealed::read(&["card..number".to_owned()]).is_err());
        assert!(Concealed::read(&[String::new()]).is_err());
    }
}
