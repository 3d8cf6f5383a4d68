//! Looking without having been rung, and keeping the places where looks begin.

use std::{sync::Arc, time::Duration};

use tracing::debug;

use super::context::Context;
use crate::{backoff, store::KeptPlace};

/// How long until the next sweep, where there is one: `at_least` so long, for its look is one from the beginning.
pub(super) fn pause(context: &Context, at_least: Duration) -> Option<Duration> {
    Some(backoff::jittered(context.config.sweep?, rand::random()).max(at_least))
}

/// Whether to look: who is awake does; who is parked asks together with the other consumers of the process.
pub(super) fn sweep(context: &Context, parked: bool) -> impl Future<Output = bool> + Send + use<> {
    // Also has scheduled messages looked for.
    let waiting = context.process.sweeper().is_waiting(&context.target);
    async move { !parked || waiting.await }
}

/// Keeps where this consumer is, so that the next one to start need not begin at the beginning.
pub(super) async fn keep(context: Arc<Context>, places: Vec<KeptPlace>) {
    if let Err(error) = context.store.keep_places(&context.target, &places).await {
        debug!(?error, "the places could not be kept; the next sweep tries again");
    }
}
