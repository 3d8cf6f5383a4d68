//! One look into the table that leases what it takes.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{context::Context, holding::NextLook, looking::Look};
use crate::{
    backoff,
    error::Result,
    store::{ClaimRequest, Looked, Ranges},
};

const RETRY_BASE: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// What came of it.
pub(super) struct Claimed {
    pub(super) look: Look,
    pub(super) limit: usize,
    pub(super) took: Duration,
    pub(super) looked: Result<Looked>,
}

/// Claims up to `limit` messages. After failures it waits, and gives back what a claim took whose answer did not come
/// before it can be claimed.
pub(super) async fn claim(
    context: Arc<Context>,
    owner: Arc<str>,
    (look, ranges): (Look, Option<Ranges>),
    limit: usize,
    failures: u32,
) -> Claimed {
    if failures > 0 {
        tokio::time::sleep(backoff::delay(RETRY_BASE, RETRY_CAP, failures, rand::random())).await;
    }
    // What is not held.
    let except = (look.next() == NextLook::Others).then(|| context.registry.tx_types(None));
    let request = ClaimRequest { except_types: except.as_deref(), ..context.request(&owner) };
    let (asked, in_hand) = (Instant::now(), context.process.held());
    let looked = async {
        if failures > 0 {
            in_hand.return_strays(&context.store, &owner).await?;
        }
        let claim = in_hand.claim(context.store.claim(&request, limit, ranges.as_ref(), look.why()));
        context.claiming(look.why(), claim, |looked| looked.deliveries.len()).await
    };
    let looked = looked.await;
    Claimed { look, limit, took: asked.elapsed(), looked }
}
