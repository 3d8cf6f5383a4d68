//! Running the handlers of one task to their ends.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    context::Context,
    effects,
    running::{Begun, Handled, Ran},
};
use crate::{message::Delivery, outcome::Outcome, store::Claim};

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

/// The handler of a held message, begun.
pub(super) struct Handling {
    claim: Claim,
    begun: Begun,
    outcome: BoxFuture<'static, Outcome>,
    /// Its place among the handlers of held messages that run at a time; none when it has become a task.
    slot: Option<OwnedSemaphorePermit>,
}

impl Handling {
    pub(super) fn new(context: Arc<Context>, delivery: Delivery, slot: OwnedSemaphorePermit) -> Self {
        let (claim, begun) = (Claim::of(&delivery), Begun::default());
        begun.now();
        let outcome = async move {
            let processing = context.processing(&delivery);
            processing.run(context.registry.run(delivery, context.config.handler_timeout)).await
        };
        Self { claim, begun, outcome: outcome.boxed(), slot: Some(slot) }
    }

    pub(super) fn claim(&self) -> Claim {
        self.claim
    }

    pub(super) fn begun(&self) -> &Begun {
        &self.begun
    }

    /// Goes on as a task of its own, and tells of its end.
    pub(super) async fn finish(mut self, handled: mpsc::UnboundedSender<Handled>) {
        self.slot = None;
        let (claim, took, outcome) = self.await;
        // The loop is gone only when the process is being torn down.
        let _ = handled.send(Handled { ran: vec![(claim, Ran::Outcome(outcome))], canary: false, took });
    }
}

impl Future for Handling {
    type Output = (Claim, Duration, Outcome);

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.outcome.poll_unpin(cx));
        Poll::Ready((self.claim, self.begun.now().elapsed(), outcome))
    }
}

impl std::fmt::Debug for Handling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handling").field("claim", &self.claim).finish_non_exhaustive()
    }
}
