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

use super::{
    looking::{Extra, Looking, Seen},
    view::{Change, Sent, View},
};

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
    wishes: Wishes,
    /// Whether the task below looks: it ends only under this lock, so a viewer either has it or begins it.
    looking: Arc<Mutex<bool>>,
    task: Mutex<JoinSet<()>>,
}

impl Live {
    pub(super) fn new() -> Self {
        Self {
            looks: watch::channel(Look::None).0,
            wishes: Wishes::default(),
            looking: Arc::default(),
            task: Mutex::default(),
        }
    }

    /// What changes of a page, from everything on, until it is dropped.
    pub(super) fn watch(&self, eyes: &Arc<Looking>, view: View) -> impl Stream<Item = Value> + use<> {
        let wish = view.extra().map(|extra| self.wishes.add(extra));
        let mut looks = self.looks.subscribe();
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if !*looking {
            *looking = true;
            // What was seen when somebody watched last is old.
            self.looks.send_replace(Look::None);
            let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            while task.try_join_next().is_some() {}
            task.spawn(look(eyes.clone(), self.wishes.clone(), self.looks.clone(), self.looking.clone()));
        }
        drop(looking);
        looks.mark_changed();
        let viewer = Viewer { view, sent: Sent::default(), away: false, _wish: wish };
        stream::unfold((looks, viewer), |(mut looks, mut viewer)| async {
            loop {
                looks.changed().await.ok()?;
                let look = looks.borrow_and_update().clone();
                if let Some(change) = viewer.change(&look) {
                    return Some((change, (looks, viewer)));
                }
            }
        })
    }
}

/// Looks as long as somebody watches.
async fn look(eyes: Arc<Looking>, wishes: Wishes, looks: watch::Sender<Look>, looking: Arc<Mutex<bool>>) {
    let mut number = 0;
    loop {
        let begun = Instant::now();
        let seen = match eyes.look(&wishes.all()).await {
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

/// Somebody who watches.
struct Viewer {
    view: View,
    sent: Sent,
    away: bool,
    /// What is looked at for them.
    _wish: Option<Wish>,
}

impl Viewer {
    /// What they have not, as the script takes it. `None`: nothing.
    fn change(&mut self, look: &Look) -> Option<Value> {
        let (number, seen) = match look {
            Look::None => return None,
            Look::Away => return (!std::mem::replace(&mut self.away, true)).then(|| json!({ "away": true })),
            Look::Seen(number, seen) => (number, seen),
        };
        let Change { parts, rows } = self.sent.change(self.view.shown(seen)?);
        let back = std::mem::take(&mut self.away);
        (!parts.is_empty() || rows.is_some() || back).then(|| json!({ "look": number, "parts": parts, "rows": rows }))
    }
}

/// What is looked at besides targets, and for how many viewers.
#[derive(Clone, Default)]
struct Wishes(Arc<Mutex<BTreeMap<Extra, usize>>>);

/// That of one viewer, until they go.
struct Wish(Wishes, Extra);

impl Wishes {
    fn add(&self, extra: Extra) -> Wish {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(extra.clone()).or_default() += 1;
        Wish(self.clone(), extra)
    }

    fn all(&self) -> Vec<Extra> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        let mut wishes = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(viewers) = wishes.get_mut(&self.1) {
            *viewers -= 1;
            if *viewers == 0 {
                wishes.remove(&self.1);
            }
        }
    }
}
