//! Running handlers to their ends.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

use super::{
    context::Context,
    effects,
    running::{Begun, Handled, Ran},
    together,
};
use crate::{message::Delivery, outcome::Outcome, store::Claim};

/// Runs the handler of a leased message, as a task that tells of its end.
pub(super) async fn handle(
    context: Arc<Context>,
    delivery: Delivery,
    begun: Begun,
    handled: mpsc::UnboundedSender<Box<Handled>>,
) {
    let (started, claim, canary) = (begun.now(), Claim::of(&delivery), delivery.canary);
    let (ran, handler) = run(&context, delivery).await;
    // The loop is gone only when the process is being torn down.
    let _ = handled.send(Box::new(Handled::One { claim, ran, canary, took: started.elapsed(), handler }));
}

/// Runs the handler of a leased message to its end. Returns how long the handler itself took, too.
pub(super) async fn run(context: &Context, delivery: Delivery) -> (Ran, Duration) {
    // In boxes: a future has room for the largest of what it may become, and is moved when its task begins. These took a fifth of
    // the time of a consumer of plain handlers, twice of it when replies were added to one of them.
    if context.registry.several(&delivery.record_type).is_some() {
        let began = Instant::now();
        let ran = Box::pin(together::run_one(context, delivery)).await;
        return (ran, began.elapsed());
    }
    if context.registry.tx(&delivery.record_type).is_some() {
        return Box::pin(effects::run(context, &delivery)).await;
    }
    let (began, processing) = (Instant::now(), context.processing(&delivery));
    let handling = context.registry.run(delivery, context.config.handler_timeout);
    let outcome = processing.run(handling).await;
    (Ran::Outcome(outcome), began.elapsed())
}

/// The plain handler of a held message, begun.
pub(super) struct Handling {
    claim: Claim,
    begun: Begun,
    outcome: BoxFuture<'static, Outcome>,
    /// Its place among the handlers that run at a time, until it is taken over by who knows of the task it has become.
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

    pub(super) fn take_slot(&mut self) -> Option<OwnedSemaphorePermit> {
        self.slot.take()
    }

    /// Goes on as a task of its own, and tells of its end.
    pub(super) async fn finish(self, handled: mpsc::UnboundedSender<Box<Handled>>) {
        let (claim, took, outcome) = self.await;
        // The loop is gone only when the process is being torn down.
        let (ran, handler) = (Ran::Outcome(outcome), took);
        let _ = handled.send(Box::new(Handled::One { claim, ran, canary: false, took, handler }));
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
