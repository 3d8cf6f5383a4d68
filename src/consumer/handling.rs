//! Running the handlers of one task to their ends.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{context::Context, effects, workers::Begun};
use crate::{handler::timeout_reason, message::Delivery, outcome::Outcome, store::Claim};

/// How the run of a message's handler ended.
#[derive(Clone, Debug)]
pub(super) enum Ran {
    /// To be settled.
    Outcome(Outcome),
    /// Completed already, in the transaction of its handler.
    Completed,
    /// The transaction of its handler found the lease lost, and was rolled back.
    LeaseLost,
}

/// One task's end: what became of its messages.
#[derive(Debug)]
pub(super) struct Handled {
    pub(super) ran: Vec<(Claim, Ran)>,
    pub(super) canary: bool,
    pub(super) took: Duration,
}

/// Runs the handlers of one task. While a suspect runs alone in this process, it waits.
pub(super) async fn handle(
    context: Arc<Context>,
    deliveries: Vec<Delivery>,
    claims: Vec<Claim>,
    begun: Begun,
    handled: mpsc::UnboundedSender<Handled>,
) {
    let _beside_others = context.process.isolation().beside_others().await;
    let started = begun.now();
    let canary = deliveries.iter().any(|delivery| delivery.canary);
    let ran = run_handlers(&context, deliveries).await;
    let ran = claims.into_iter().zip(ran).collect();
    // The loop is gone only when the process is being torn down.
    let _ = handled.send(Handled { ran, canary, took: started.elapsed() });
}

/// Runs deliveries to their ends, in the order given: several only where they have transactional handlers.
pub(super) async fn run_handlers(context: &Context, deliveries: Vec<Delivery>) -> Vec<Ran> {
    if deliveries.iter().all(|delivery| context.registry.tx(&delivery.record_type).is_some()) {
        return effects::run(context, &deliveries).await;
    }
    let mut ran = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        let processing = context.processing(&delivery);
        let handling = context.registry.run(delivery, context.config.handler_timeout);
        ran.push(Ran::Outcome(processing.run(handling).await));
    }
    ran
}

/// What becomes of a message whose handler its timeout did not stop.
pub(super) fn did_not_stop(limit: Duration) -> Outcome {
    Outcome::retry(timeout_reason(limit) + " and did not stop")
}
