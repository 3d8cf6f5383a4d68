//! Processes.

use std::time::SystemTime;

/// A registered process, as the database sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProcessRow {
    /// By what name it owns messages: unique per start, and anew after it lost its lease.
    pub owner: String,
    /// Where it runs.
    pub host: String,
    /// Its process id there.
    pub pid: i32,
    /// Its application_name.
    pub application: String,
    /// Doorbell's version in it.
    pub version: String,
    /// What its consumers accept, as JSON.
    pub targets: String,
    /// When it registered.
    pub started_at: SystemTime,
    /// Its last heartbeat.
    pub beat_at: SystemTime,
    /// Whether its lease still runs.
    pub alive: bool,
    /// Seconds since its last heartbeat, by the server's clock.
    pub beat_age_seconds: f64,
    /// Messages that it owns.
    pub processing: i64,
}

impl ProcessRow {
    /// The targets it consumes, by name.
    pub fn target_names(&self) -> Vec<String> {
        serde_json::from_str::<std::collections::BTreeMap<String, serde::de::IgnoredAny>>(&self.targets)
            .map(|targets| targets.into_keys().collect())
            .unwrap_or_default()
    }
}
