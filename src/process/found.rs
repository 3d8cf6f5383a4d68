//! How claimed messages were found, added up in memory until the database is told.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tracing::debug;

use crate::{
    message::Found,
    store::{FoundCounts, Store},
};

/// What was found since the last flush, by target.
#[derive(Debug, Default)]
pub(crate) struct FoundAccounts(Mutex<BTreeMap<String, FoundCounts>>);

impl FoundAccounts {
    /// Adds so many messages that one claim found.
    pub(crate) fn add(&self, target: &str, found: Found, messages: usize) {
        if messages == 0 {
            return;
        }
        self.with(|counts| {
            // No entry(): it would copy the name for every claim.
            if !counts.contains_key(target) {
                counts.insert(target.to_owned(), FoundCounts::default());
            }
            let Some(count) = counts.get_mut(target) else { return };
            let count = match found {
                Found::Bell => &mut count.bells,
                Found::Drain => &mut count.drains,
                Found::Sweep => &mut count.sweeps,
            };
            *count += messages as i64;
        });
    }

    /// Tells the database. What it does not take is told the next time; when the answer is lost, it may be told twice.
    pub(crate) async fn flush(&self, store: &Store) {
        let counts = self.with(std::mem::take);
        if counts.is_empty() {
            return;
        }
        if let Err(error) = store.note_found(&counts).await {
            debug!(?error, "how messages were found could not be told; the next flush tries again");
            self.with(|kept| {
                for (target, count) in counts {
                    let sum = kept.entry(target).or_default();
                    sum.bells += count.bells;
                    sum.drains += count.drains;
                    sum.sweeps += count.sweeps;
                }
            });
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, FoundCounts>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
