//! Ordering keys: those of a target, or all that are blocked.

use askama::Template;
use doorbell::{
    MessageId, Result,
    operate::{KeyRow, KeyState, Operator},
};
use serde::Deserialize;

use crate::{
    page::written,
    words::{self, Time, time},
};

/// Lines of one page.
pub(crate) const LINES: u32 = 50;

/// Which of them: those of a target, or all that are blocked.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    #[serde(default)]
    pub(crate) target: String,
    #[serde(default)]
    pub(crate) after: String,
}

impl Wanted {
    pub(crate) async fn find(&self, reader: &Operator) -> Result<Vec<KeyRow>> {
        match self.target.trim() {
            "" => reader.blocked_keys(None, LINES).await,
            target => reader.keys(target, LINES, Some(&self.after)).await,
        }
    }
}

/// A key.
pub(crate) struct Key {
    pub(crate) target: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) mood: &'static str,
    pub(crate) blocked: bool,
    pub(crate) message: Option<MessageId>,
    pub(crate) waiting: String,
    pub(crate) since: Option<Time>,
    pub(crate) reason: String,
}

#[derive(Template)]
#[template(path = "key_row.html")]
struct RowPart {
    key: Key,
    act: bool,
}

/// The lines of the page, by target and key.
pub(crate) fn rows(keys: &[KeyRow], act: bool) -> Vec<(String, String)> {
    let rows = keys.iter().map(Key::from);
    rows.map(|key| (key.row_name(), written(&RowPart { key, act }))).collect()
}

impl Key {
    /// By what its line is known.
    pub(crate) fn row_name(&self) -> String {
        format!("{} {}", self.target, self.name)
    }
}

impl From<&KeyRow> for Key {
    fn from(row: &KeyRow) -> Self {
        Self {
            state: row.state.to_string(),
            mood: match row.state {
                KeyState::Blocked => "stopped",
                KeyState::Waits => "uneasy",
                _ => "well",
            },
            blocked: row.state == KeyState::Blocked,
            message: row.message,
            waiting: words::count(row.waiting),
            since: row.since.map(time),
            reason: row.reason.clone().unwrap_or_default(),
            target: row.target.clone(),
            name: row.key.clone(),
        }
    }
}
