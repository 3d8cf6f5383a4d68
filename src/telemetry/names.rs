//! The names by which spans can be found. Where OpenTelemetry's messaging conventions (1.42, still in development) have a
//! name, it is theirs; the rest is ours. A change of the conventions is a change here, in `spans`, and in the metrics' names.

/// The target of all spans, so that a filter can name them: `RUST_LOG=info,doorbell::trace=off`.
pub(crate) const SPANS: &str = "doorbell::trace";
/// `messaging.system`.
pub(crate) const SYSTEM: &str = "doorbell";
/// The W3C header that says which trace a message belongs to.
pub(crate) const TRACEPARENT: &str = "traceparent";
