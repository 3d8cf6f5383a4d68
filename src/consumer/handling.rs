//! Running the handlers of one task to their ends.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    context::Context,
    effects,
    running::{Begun, Handled, Ran},
};
use crate::{message::Delivery, store::Claim};

/// Runs the handlers of one task.
pub(super) async fn handle(
    context: Arc<Context>,
    deliveries: Vec<Delivery>,
    claims: Vec<Claim>,
    begun: Begun,
    handled: mpsc::UnboundedSender<Handled>,
) {
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
