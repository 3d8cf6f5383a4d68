//! What observers need: the hooks for metrics and traces, Prometheus, and whether a consumer is alive.

pub use crate::{
    consumer::Pulse,
    message::Found,
    telemetry::{Event, Observer, Propagator},
};

#[cfg(feature = "metrics")]
pub use crate::metrics::Metrics;
