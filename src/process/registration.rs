//! Who this process is to the database: the owner of its messages, and what its consumers accept.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::aside::Aside;
use crate::{
    error::Result,
    store::{Met, Registrant, Store},
};

/// The registration of one process, and its owner's name, which changes when the lease was lost.
#[derive(Debug)]
pub(crate) struct Registration {
    aside: Aside,
    host: String,
    application: String,
    lease: Duration,
    owner: watch::Sender<Arc<str>>,
    accepts: Mutex<BTreeMap<String, Accepts>>,
    beaten_at: Mutex<Instant>,
}

/// What one target's consumers in this process accept.
#[derive(Clone, Debug, Default)]
struct Accepts {
    /// `None`: any.
    record_types: Option<Vec<String>>,
    capacity: usize,
    consumers: usize,
    /// One of them works in transactions.
    holds: bool,
}

impl Registration {
    /// A fresh owner, unknown to the database until it is [announced](Self::announce).
    pub(super) fn new(aside: Aside, application: String, lease: Duration) -> Self {
        let host = host_name();
        let (owner, _) = watch::channel(name(&host));
        Self {
            aside,
            host,
            application,
            lease,
            owner,
            accepts: Mutex::default(),
            beaten_at: Mutex::new(Instant::now()),
        }
    }

    /// The lease was renewed just now.
    pub(super) fn beaten(&self) {
        *self.beaten_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether the lease was renewed within its length.
    pub(super) fn is_beating(&self) -> bool {
        self.beaten_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < self.lease
    }

    /// Who owns what this process claims now.
    pub(crate) fn owner(&self) -> Arc<str> {
        self.owner.borrow().clone()
    }

    /// The same, and when it changes.
    pub(crate) fn owners(&self) -> watch::Receiver<Arc<str>> {
        self.owner.subscribe()
    }

    /// The targets that are consumed here.
    pub(super) fn targets(&self) -> Vec<String> {
        self.with_accepts(|accepts| accepts.keys().cloned().collect())
    }

    /// Counts a consumer in. The database knows once this is announced.
    pub(super) fn accept(&self, target: &str, record_types: Option<&[String]>, capacity: usize, holds: bool) {
        self.with_accepts(|accepts| {
            let entry = accepts
                .entry(target.to_owned())
                .or_insert_with(|| Accepts { record_types: Some(Vec::new()), ..Accepts::default() });
            entry.record_types = match (entry.record_types.take(), record_types) {
                (Some(mut known), Some(more)) => {
                    known.extend(more.iter().cloned());
                    Some(known)
                }
                _ => None,
            };
            entry.capacity += capacity;
            entry.consumers += 1;
            entry.holds |= holds;
        });
    }

    /// Counts a consumer out.
    pub(super) fn leave(&self, target: &str, capacity: usize) {
        self.with_accepts(|accepts| {
            if let Some(entry) = accepts.get_mut(target) {
                entry.capacity -= capacity;
                entry.consumers -= 1;
                if entry.consumers == 0 {
                    accepts.remove(target);
                }
            }
        });
    }

    /// Tells the database who this process is and what it accepts.
    pub(super) async fn announce(&self) -> Result<()> {
        let targets = self.with_accepts(|accepts| {
            let entries = accepts.iter().map(|(target, accepts)| {
                let Accepts { record_types, capacity, holds, .. } = accepts;
                let accepts = json!({ "types": record_types, "capacity": capacity, "holds": holds });
                (target.clone(), accepts)
            });
            serde_json::Value::Object(entries.collect()).to_string()
        });
        let (owner, host, application, lease) = (self.owner(), self.host.clone(), self.application.clone(), self.lease);
        let register = |store: Store| async move {
            let (owner, host, application, targets) = (&*owner, &*host, &*application, &*targets);
            store.register(&Registrant { owner, host, application, targets, lease }).await
        };
        self.aside.call(register).await
    }

    /// Whom the process has registered with. Asked before anything is claimed: a failover may come before the first beat, and
    /// is seen only by whoever knows whom it was with until then.
    pub(super) async fn meet(&self) -> Result<Met> {
        let (owner, lease) = (self.owner(), self.lease);
        Ok(self.aside.call(|store| async move { store.beat(&owner, lease).await }).await?.met)
    }

    /// The lease is gone: everything that the owner held belongs to others. Whoever watches sees the new one.
    pub(super) fn rename(&self) -> Arc<str> {
        let fresh = name(&self.host);
        self.owner.send_replace(fresh.clone());
        fresh
    }

    /// Says the owner again, now that the database knows it: the listener takes the session lock of a registered one.
    pub(super) fn announced(&self) {
        self.owner.send_modify(|_| {});
    }

    fn with_accepts<T>(&self, f: impl FnOnce(&mut BTreeMap<String, Accepts>) -> T) -> T {
        f(&mut self.accepts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A name that no process had before: for an owner, or for who does the maintenance.
pub(crate) fn fresh_name() -> Arc<str> {
    name(&host_name())
}

fn name(host: &str) -> Arc<str> {
    format!("{}-{}-{:016x}", host.chars().take(60).collect::<String>(), std::process::id(), rand::random::<u64>())
        .into()
}

fn host_name() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
