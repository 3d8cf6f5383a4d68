//! What the doctor found last.

use std::time::{Duration, Instant};

use doorbell::doctor::Report;

/// What the doctor found last, shared by all viewers.
#[derive(Clone)]
pub(super) struct Examined {
    pub(super) report: Report,
    /// When it was over.
    pub(super) at: Instant,
    pub(super) took: Duration,
}
