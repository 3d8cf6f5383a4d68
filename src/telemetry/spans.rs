//! The spans, with OpenTelemetry's names. Built only when a subscriber wants them: their fields are not even computed
//! otherwise. The `otel.*` fields are read by tracing-opentelemetry.
//!
//! Level INFO, target `doorbell::trace`. What one message has of its own is on its process span; a batch counts.

use tracing::{Span, field::Empty, info_span};

use super::names::{SPANS, SYSTEM};
use crate::{
    error::Error,
    message::{Delivery, Found, Message},
    outcome::Outcome,
};

/// `publish billing` and the like: what all have, and fields of its own.
macro_rules! span {
    ($operation:literal, $type:literal, $kind:literal, $target:expr, $($own:tt)*) => {
        info_span!(
            target: SPANS,
            $operation,
            otel.name = format!(concat!($operation, " {}"), $target),
            otel.kind = $kind,
            otel.status_code = Empty,
            messaging.system = SYSTEM,
            messaging.operation.type = $type,
            messaging.operation.name = $operation,
            messaging.destination.name = $target,
            error.type = Empty,
            $($own)*
        )
    };
}

/// `publish billing`: one call, whose context travels with its messages.
pub(super) fn publish(messages: &[Message]) -> Span {
    let target = match messages {
        [first, rest @ ..] if rest.iter().all(|message| message.target == first.target) => first.target.as_str(),
        _ => "several targets",
    };
    span!("publish", "send", "producer", target, messaging.batch.message_count = Empty, messaging.message.id = Empty,)
}

/// `receive billing`: one look into the table.
pub(super) fn receive(target: &str, found: Found) -> Span {
    span!(
        "receive",
        "receive",
        "client",
        target,
        messaging.batch.message_count = Empty,
        messaging.doorbell.found = found.name(),
    )
}

/// `process billing`: one run of a handler.
pub(super) fn process(delivery: &Delivery) -> Span {
    span!(
        "process",
        "process",
        "consumer",
        delivery.target,
        messaging.client.id = &*delivery.owner,
        messaging.message.id = delivery.id,
        messaging.doorbell.source = delivery.source,
        messaging.doorbell.record_type = delivery.record_type,
        messaging.doorbell.attempt = delivery.attempt,
        messaging.doorbell.outcome = Empty,
    )
}

/// The same, of several messages; a single one has what it has in any case.
pub(super) fn process_together(target: &str, deliveries: &[Delivery]) -> Span {
    if let [delivery] = deliveries {
        return process(delivery);
    }
    span!(
        "process",
        "process",
        "consumer",
        target,
        messaging.batch.message_count = deliveries.len(),
        messaging.doorbell.outcome = Empty,
    )
}

/// `settle billing`: what became of a batch.
pub(super) fn settle(target: &str) -> Span {
    span!("settle", "settle", "client", target, messaging.batch.message_count = Empty,)
}

/// How a batch ended.
pub(super) fn ended(span: &Span, messages: usize, error: Option<&Error>) {
    if span.is_disabled() {
        return;
    }
    span.record("messaging.batch.message_count", messages);
    if let Some(error) = error {
        span.record("error.type", error.kind().name());
        span.record("otel.status_code", "ERROR");
    }
}

/// How a run ended. Reasons are the handler's words and stay out of it.
pub(super) fn handled(span: &Span, outcome: &Outcome) {
    if span.is_disabled() {
        return;
    }
    span.record("messaging.doorbell.outcome", outcome.name());
    if matches!(outcome, Outcome::Retry { .. } | Outcome::Reject { .. } | Outcome::Unavailable { .. }) {
        span.record("error.type", outcome.name());
        span.record("otel.status_code", "ERROR");
    }
}

/// How a run of several messages ended: as the first that was not done, or as a whole.
pub(super) fn handled_together(span: &Span, outcomes: Option<&[Outcome]>) {
    match outcomes {
        Some(outcomes) => {
            let first = outcomes.iter().find(|outcome| **outcome != Outcome::Done).or(outcomes.first());
            first.into_iter().for_each(|outcome| handled(span, outcome));
        }
        None if !span.is_disabled() => {
            span.record("error.type", "batch");
            span.record("otel.status_code", "ERROR");
        }
        None => {}
    }
}
