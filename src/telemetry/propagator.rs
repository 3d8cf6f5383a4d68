//! The hook for traces.

use std::fmt;

use tracing::Span;

use crate::message::Headers;

/// Carries the context of a trace from whoever publishes to whoever handles, in the W3C headers `traceparent` and
/// `tracestate` of a message. Given to a broker by [`BrokerConfig::propagator`](crate::BrokerConfig).
///
/// It translates between the spans of `tracing` and a tracing system, so that no type of one is part of this library.
/// `examples/tracing_otel.rs` is one for OpenTelemetry, in about thirty lines. Without one, headers that the caller sets
/// travel all the same.
pub trait Propagator: fmt::Debug + Send + Sync + 'static {
    /// Writes the context of `span`, which publishes, into the headers of a message. Where our spans are filtered out it is
    /// the caller's current one, which may be disabled, too. Not asked for messages that have a `traceparent` already.
    fn inject(&self, span: &Span, headers: &mut Headers);

    /// Links `span`, which will handle the message (disabled where our spans are filtered out), to the context in its headers. Every attempt links to the same one.
    /// A link and not a parent is what OpenTelemetry asks for: one trace per delivery, whatever else the batch held.
    fn link(&self, span: &Span, headers: &Headers);
}
