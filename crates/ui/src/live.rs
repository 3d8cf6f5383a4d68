//! Numbers as they change: one look for all viewers, none without any.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::looking::{Looking, Seen};

/// A look every so often, or ten times as long as one takes.
const EVERY_MIN: Duration = Duration::from_secs(1);
const SHARE: u32 = 10;

/// What was seen last.
#[derive(Clone)]
enum Look {
    /// Nobody has looked yet.
    None,
    /// By its number.
    Seen(u64, Arc<Seen>),
    /// The database did not answer.
    Away,
}

/// The looks, for whoever watches.
pub(super) struct Live {
    looks: watch::Sender<Look>,
    /// Whether the task below looks: it ends only under this lock, so a viewer either has it or begins it.
    looking: Arc<Mutex<bool>>,
    task: Mutex<JoinSet<()>>,
}

impl Live {
    pub(super) fn new() -> Self {
        Self { looks: watch::channel(Look::None).0, looking: Arc::default(), task: Mutex::default() }
    }

    /// What changes, from everything on, until it is dropped: of one target, or of the overview.
    pub(super) fn watch(&self, eyes: &Arc<Looking>, target: Option<String>) -> impl Stream<Item = Value> + use<> {
        let mut looks = self.looks.subscribe();
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if !*looking {
            *looking = true;
            // What was seen when somebody watched last is old.
            self.looks.send_replace(Look::None);
            let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            while task.try_join_next().is_some() {}
            task.spawn(look(eyes.clone(), self.looks.clone(), self.looking.clone()));
        }
        drop(looking);
        looks.mark_changed();
        stream::unfold((looks, Sent { target, ..Sent::default() }), |(mut looks, mut sent)| async {
            loop {
                looks.changed().await.ok()?;
                let look = looks.borrow_and_update().clone();
                if let Some(change) = sent.change(&look) {
                    return Some((change, (looks, sent)));
                }
            }
        })
    }
}

/// Looks as long as somebody watches.
async fn look(eyes: Arc<Looking>, looks: watch::Sender<Look>, looking: Arc<Mutex<bool>>) {
    let mut number = 0;
    loop {
        let begun = Instant::now();
        let seen = match eyes.look().await {
            Ok(seen) => {
                number += 1;
                Look::Seen(number, Arc::new(seen))
            }
            Err(error) => {
                tracing::debug!(?error, "there is nothing new to show");
                Look::Away
            }
        };
        let pause = EVERY_MIN.max(begun.elapsed() * SHARE);
        looks.send_replace(seen);
        tokio::select! {
            () = sleep(pause) => {}
            () = looks.closed() => {}
        }
        let mut looking = looking.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.is_closed() {
            *looking = false;
            return;
        }
    }
}

/// What a viewer has.
#[derive(Default)]
struct Sent {
    /// What they look at; `None`: the overview.
    target: Option<String>,
    parts: BTreeMap<String, String>,
    order: Vec<String>,
    away: bool,
}

impl Sent {
    /// What it has not, as the script takes it. `None`: nothing.
    fn change(&mut self, look: &Look) -> Option<Value> {
        let (number, seen) = match look {
            Look::None => return None,
            Look::Away => return (!std::mem::replace(&mut self.away, true)).then(|| json!({ "away": true })),
            Look::Seen(number, seen) => (number, seen),
        };
        let parts: Vec<(&str, String)> = match &self.target {
            None => seen.summary.parts().into(),
            Some(target) => seen.standing(target).map(|standing| standing.parts().into()).unwrap_or_default(),
        };
        let parts: BTreeMap<&str, String> = parts.into_iter().filter(|(id, html)| self.is_new(id, html)).collect();
        let rows = if self.target.is_none() { self.rows(seen) } else { None };
        let back = std::mem::take(&mut self.away);
        if parts.is_empty() && rows.is_none() && !back {
            return None;
        }
        Some(json!({ "look": number, "parts": parts, "rows": rows }))
    }

    /// All lines by target in their order, with what is new of them. `None`: nothing is.
    fn rows(&mut self, seen: &Seen) -> Option<Vec<(String, Option<String>)>> {
        let rows: Vec<(String, Option<String>)> = seen
            .summary
            .rows()
            .map(|(name, html)| (name.to_owned(), self.is_new(&format!("row {name}"), &html).then_some(html)))
            .collect();
        let order: Vec<String> = rows.iter().map(|(name, _)| name.clone()).collect();
        let same = order == self.order && rows.iter().all(|(_, html)| html.is_none());
        self.order = order;
        (!same).then_some(rows)
    }

    fn is_new(&mut self, id: &str, html: &str) -> bool {
        let new = self.parts.get(id).is_none_or(|sent| sent != html);
        if new {
            self.parts.insert(id.to_owned(), html.to_owned());
        }
        new
    }
}
