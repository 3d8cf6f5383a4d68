//! What of a page changes while somebody looks at it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    looking::{Extra, Seen},
    tables::{consumers, keys, targets},
};

/// A page that somebody looks at.
#[derive(Clone, Debug)]
pub(super) enum View {
    Overview,
    Target(String),
    Targets(targets::Wanted),
    Consumers { act: bool },
    Keys { wanted: keys::Wanted, act: bool },
}

/// As an address says it.
#[derive(Deserialize)]
pub(super) struct Address {
    #[serde(default)]
    view: String,
    target: Option<String>,
    #[serde(default)]
    named: String,
    #[serde(default)]
    page: usize,
    #[serde(default)]
    after: String,
}

/// A page as it is now: its parts by their ids, and the lines of its table by name, in their order.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) parts: Vec<(&'static str, String)>,
    pub(super) rows: Option<Vec<(String, String)>>,
}

impl View {
    /// For somebody who may act, or not.
    pub(super) fn read(address: Address, act: bool) -> Self {
        let Address { view, target, named, page, after } = address;
        match (view.as_str(), target) {
            ("targets", _) => Self::Targets(targets::Wanted { named, page }),
            ("consumers", _) => Self::Consumers { act },
            ("keys", target) => Self::Keys { wanted: keys::Wanted { target: target.unwrap_or_default(), after }, act },
            (_, Some(target)) => Self::Target(target),
            _ => Self::Overview,
        }
    }

    /// What has to be looked at for it besides targets.
    pub(super) fn extra(&self) -> Option<Extra> {
        match self {
            Self::Overview | Self::Target(_) | Self::Targets(_) => None,
            Self::Consumers { .. } => Some(Extra::Processes),
            Self::Keys { wanted, .. } => Some(Extra::Keys(wanted.clone())),
        }
    }

    /// `None`: that was not looked at yet.
    pub(super) fn shown(&self, seen: &Seen) -> Option<Shown> {
        let rows = |rows: Vec<(String, String)>| Shown { rows: Some(rows), ..Shown::default() };
        Some(match self {
            Self::Overview => Shown {
                parts: seen.summary.parts().into(),
                rows: Some(seen.summary.rows().map(|(name, html)| (name.to_owned(), html)).collect()),
            },
            Self::Target(name) => Shown {
                parts: seen.standing(name).map(|standing| standing.parts().into()).unwrap_or_default(),
                rows: None,
            },
            Self::Targets(wanted) => rows(wanted.rows(&seen.targets)),
            Self::Consumers { act } => rows(consumers::rows(seen.processes.as_ref()?, *act)),
            Self::Keys { wanted, act } => rows(keys::rows(seen.keys.get(wanted)?, *act)),
        })
    }
}

/// What a viewer was sent.
#[derive(Default)]
pub(super) struct Sent {
    html: BTreeMap<String, String>,
    /// `None`: no lines yet, which is not the same as that there are none.
    order: Option<Vec<String>>,
}

/// What a viewer has not.
pub(super) struct Change {
    pub(super) parts: BTreeMap<&'static str, String>,
    /// All lines in their order, with what is new of them; `None`: nothing is.
    pub(super) rows: Option<Vec<(String, Option<String>)>>,
}

impl Sent {
    /// What has changed since the last time.
    pub(super) fn change(&mut self, shown: Shown) -> Change {
        let parts = shown.parts.into_iter().filter(|(id, html)| self.is_new(id, html)).collect();
        Change { parts, rows: shown.rows.and_then(|rows| self.rows(rows)) }
    }

    fn rows(&mut self, rows: Vec<(String, String)>) -> Option<Vec<(String, Option<String>)>> {
        let order: Vec<String> = rows.iter().map(|(name, _)| name.clone()).collect();
        let rows: Vec<(String, Option<String>)> = rows
            .into_iter()
            .map(|(name, html)| {
                let new = self.is_new(&format!("row {name}"), &html);
                (name, new.then_some(html))
            })
            .collect();
        let same = self.order.as_ref() == Some(&order) && rows.iter().all(|(_, html)| html.is_none());
        self.order = Some(order);
        (!same).then_some(rows)
    }

    fn is_new(&mut self, id: &str, html: &str) -> bool {
        let new = self.html.get(id).is_none_or(|sent| sent != html);
        if new {
            self.html.insert(id.to_owned(), html.to_owned());
        }
        new
    }
}
