//! Steps of handlers.

use std::time::SystemTime;

/// A step of a message's handling that is done, and not done again before the message is redriven.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SavedStep {
    /// Its name.
    pub name: String,
    /// How often the message had been redriven then. Steps of before its last redrive are done again.
    pub redrive_count: i32,
    /// Which attempt did it.
    pub attempt: i32,
    /// When its output was saved.
    pub saved_at: SystemTime,
    /// What it returned, JSON, if that was asked for.
    pub output: Option<String>,
}
