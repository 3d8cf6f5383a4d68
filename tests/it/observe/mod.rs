//! What is there to see, and that it is true.

mod audited;
mod counters;
mod explain;
mod folding;
mod follow;
mod list;
mod metrics;
mod overview;
mod telemetry;
