//! Bells, and on which channels they hang.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

/// What a consumer waits on. Rings are merged: any number of them wakes one look.
#[derive(Debug, Default)]
pub(crate) struct Bell(Notify);

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn rung(&self) {
        self.0.notified().await;
    }
}

/// Which bells hang on which channel. A std mutex: held for a look-up, never across an await.
#[derive(Debug, Default)]
pub(super) struct Bells(Mutex<HashMap<String, Vec<Arc<Bell>>>>);

impl Bells {
    /// Hangs one on channels, once on each.
    pub(super) fn hang(&self, channels: &[String], bell: &Arc<Bell>) {
        self.with(|bells| {
            for channel in channels {
                let hung = bells.entry(channel.clone()).or_default();
                if !hung.iter().any(|other| Arc::ptr_eq(other, bell)) {
                    hung.push(bell.clone());
                }
            }
        });
    }

    /// Takes one off all of its channels.
    pub(super) fn take_off(&self, bell: &Arc<Bell>) {
        self.with(|bells| {
            bells.retain(|_, hung| {
                hung.retain(|other| !Arc::ptr_eq(other, bell));
                !hung.is_empty()
            });
        });
    }

    pub(super) fn ring(&self, channel: &str) {
        self.with(|bells| bells.get(channel).into_iter().flatten().for_each(|bell| bell.ring()));
    }

    pub(super) fn ring_all(&self) {
        self.with(|bells| bells.values().flatten().for_each(|bell| bell.ring()));
    }

    pub(super) fn channels(&self) -> Vec<String> {
        self.with(|bells| bells.keys().cloned().collect())
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<String, Vec<Arc<Bell>>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
