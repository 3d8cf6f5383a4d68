//! How fast Doorbell is, beside what cannot be beaten here: what `doorbell bench` and `cargo bench` are built of.
//!
//! Every figure has its floor from the same run on the same server, taken in turns: floor, ours, floor, ours. Medians and
//! ranges of the turns are kept, and the ratio is what counts: absolute figures say more of the machine.

#![warn(clippy::unwrap_used)]
#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "for this workspace only: what a name does not say is said"
)]

pub mod child;
pub mod floor;
mod lab;
pub mod measure;
pub mod ours;
pub mod scenario;

pub use lab::{AUDIT_LEVELS, Lab, Result, SERVER_SETTINGS, SOURCE, TARGET, TYPE, connect, raw};
