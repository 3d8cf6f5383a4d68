//! One look into the table that leases what it takes.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{context::Context, looking::Look};
use crate::{
    error::Result,
    store::{Looked, Most, Ranges},
};

/// What came of it.
pub(super) struct Claimed {
    pub(super) look: Look,
    pub(super) limit: usize,
    pub(super) took: Duration,
    pub(super) looked: Result<Looked>,
}

/// Claims messages. After a failure it pauses, and gives back what a claim took whose answer did not come
/// before it can be claimed. `seen`: who had the turn, where it is to ask that again.
pub(super) async fn claim(
    context: Arc<Context>,
    owner: Arc<str>,
    (look, ranges): (Look, Option<Ranges>),
    most: Most,
    seen: Option<String>,
    pause: Option<Duration>,
) -> Claimed {
    if let Some(pause) = pause {
        tokio::time::sleep(pause).await;
    }
    let request = context.request(&owner);
    let (asked, in_hand) = (Instant::now(), context.process.in_hand());
    let looked = async {
        if pause.is_some() {
            in_hand.return_strays(&context.store, &owner).await?;
        }
        let claim = in_hand.claim(context.store.claim(&request, most, ranges.as_ref(), seen.as_deref(), look.why()));
        context
            .claiming(look.why(), claim, |looked| looked.turned_away.is_none().then_some(looked.deliveries.len()))
            .await
    };
    let looked = looked.await;
    Claimed { look, limit: most.messages, took: asked.elapsed(), looked }
}
