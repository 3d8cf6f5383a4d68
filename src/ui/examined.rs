//! What the doctor found last.

use std::time::{Duration, SystemTime};

use crate::doctor::Report;

/// What the doctor found last, shared by all viewers.
#[derive(Clone)]
pub(super) struct Examined {
    pub(super) report: Report,
    /// By this machine's clock, for people only.
    pub(super) at: SystemTime,
    pub(super) took: Duration,
}
