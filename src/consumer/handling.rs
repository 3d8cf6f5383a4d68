//! Running the handlers of one task to their verdicts, and giving up on those that never come back.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use super::{
    effects,
    run::{Context, Key, Loop},
};
use crate::{
    error::Result,
    handler::timeout_reason,
    message::{Delivery, Found},
    outcome::Outcome,
    store::{Looked, Settlement, Verdict},
    telemetry::Processing,
};

/// A handler that its timeout did not stop (it blocks its thread) is given up this much later.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// One task's end: what became of its messages.
pub(super) struct Handled {
    pub(super) verdicts: Vec<(Key, Verdict)>,
    pub(super) canary: bool,
    pub(super) took: Duration,
}

/// Runs the handlers of one task. While a suspect runs alone in this process, it waits.
pub(super) async fn handle(
    context: Arc<Context>,
    deliveries: Vec<Delivery>,
    begun: Arc<OnceLock<Instant>>,
    handled: mpsc::UnboundedSender<Handled>,
) {
    let _beside_others = context.process.alone().read_owned().await;
    let started = *begun.get_or_init(Instant::now);
    let canary = deliveries.iter().any(|delivery| delivery.canary);
    let keys: Vec<Key> = deliveries.iter().map(|delivery| (delivery.id, delivery.attempt)).collect();
    let verdicts = run_handlers(&context, deliveries).await;
    let verdicts = keys.into_iter().zip(verdicts).collect();
    // The loop is gone only when the process is being torn down.
    let _ = handled.send(Handled { verdicts, canary, took: started.elapsed() });
}

/// Runs deliveries to their verdicts: several only where they have transactional handlers.
pub(super) async fn run_handlers(context: &Context, deliveries: Vec<Delivery>) -> Vec<Verdict> {
    if deliveries.iter().all(|delivery| context.registry.tx(&delivery.record_type).is_some()) {
        return effects::run(context, deliveries).await;
    }
    let mut verdicts = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        let processing = context.processing(&delivery);
        let handling = context.registry.run(delivery, context.config.handler_timeout);
        verdicts.push(Verdict::Outcome(processing.run(handling).await));
    }
    verdicts
}

impl Context {
    /// Runs a claim, for telemetry.
    pub(super) async fn watching(&self, found: Found, claim: impl Future<Output = Result<Looked>>) -> Result<Looked> {
        self.store.telemetry().claiming(&self.target, found, claim, |looked| looked.deliveries.len()).await
    }

    /// The same for messages that are locked; `None`: none may be.
    pub(super) async fn watching_held(
        &self,
        found: Found,
        hold: impl Future<Output = Result<Option<Looked>>>,
    ) -> Result<Option<Looked>> {
        let count = |looked: &Option<Looked>| looked.as_ref().map_or(0, |looked| looked.deliveries.len());
        self.store.telemetry().claiming(&self.target, found, hold, count).await
    }

    /// Runs the commit that settles messages of transactional handlers, for telemetry.
    pub(super) async fn committing(&self, messages: usize, commit: impl Future<Output = Result<()>>) -> Result<()> {
        let settle = async { commit.await.map(|()| 0) };
        self.store.telemetry().settling(&self.target, messages, settle).await.map(drop)
    }

    /// Begins to run a handler, for telemetry.
    pub(super) fn processing(&self, delivery: &Delivery) -> Processing<'_> {
        let record_type = self.registry.label(&delivery.record_type);
        self.store.telemetry().processing(&self.target, record_type, delivery)
    }
}

impl Loop {
    /// Fails handlers that their timeout did not stop because they never yield. Nothing renews a lease for them.
    pub(super) fn give_up_overdue(&mut self) {
        let Some(limit) = self.context.config.handler_timeout else { return };
        let overdue: Vec<Key> = self
            .running
            .iter()
            .filter(|(_, running)| {
                running.started.get().is_some_and(|started| started.elapsed() > limit * running.together as u32 + GRACE)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in overdue {
            if let Some(running) = self.running.remove(&key) {
                running.abort.abort();
                // The last message of a task frees its place.
                if !self.running.values().any(|other| Arc::ptr_eq(&other.started, &running.started)) {
                    self.tasks -= 1;
                }
                self.runs.failed += 1;
                warn!(
                    target_app = %self.context.target,
                    id = key.0,
                    attempt = key.1,
                    "the handler did not stop at its timeout; is it blocking its thread?"
                );
                let reason = timeout_reason(limit) + " and did not stop";
                self.unsettled.push(Settlement {
                    id: key.0,
                    attempt: key.1,
                    verdict: Verdict::Outcome(Outcome::retry(reason)),
                });
            }
        }
    }
}
