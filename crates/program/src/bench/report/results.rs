//! What the report is made of.

use doorbell_bench::measure::Scenario;

use super::machine::Machine;
use crate::bench::place::ServerFacts;

/// Everything that the report is made of.
pub(super) struct Results {
    /// When it began.
    pub(super) date: String,
    pub(super) command: String,
    pub(super) commit: String,
    pub(super) machine: Machine,
    pub(super) runs: Vec<Run>,
    pub(super) notes: Option<String>,
    /// The directory of the plots, as the report links to it.
    pub(super) plots: String,
}

/// What was measured on one server.
pub(super) struct Run {
    pub(super) server: ServerFacts,
    pub(super) scenarios: Vec<Scenario>,
    pub(super) minutes: f64,
}
