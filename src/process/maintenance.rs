//! This process's offer to do the maintenance.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::debug;

use super::{aside::Aside, registration::Registration};
use crate::{
    backoff,
    maintenance::{LEAD, Maintenance},
    outage::Outage,
    store::Store,
};

/// Between two rounds of whoever does the maintenance.
const ROUND: Duration = Duration::from_secs(2);
/// Between two questions of whoever does not, whether somebody does.
const QUESTION: Duration = Duration::from_secs(5);

/// Does the maintenance while nobody else does. `questions` has a connection of its own, `store` may be kept busy by
/// handlers. Whoever fails twice steps back for as long as others need to take over.
pub(super) async fn run(questions: Aside, store: Store, registration: Arc<Registration>) {
    let mut maintenance = Maintenance::of_process(store, registration.owner());
    let mut outage = Outage::new(
        "the maintenance failed; leaving it to others for a while, then trying again",
        "the maintenance works again",
    );
    let mut leading = false;
    loop {
        let pause = match (outage.failures(), leading) {
            (0, true) => ROUND,
            // A lost connection is no reason to step back.
            (0, false) | (1, _) => QUESTION,
            _ => LEAD * 2,
        };
        sleep(backoff::jittered(pause, rand::random())).await;
        let owner = registration.owner();
        maintenance.rename(&owner);
        let asked = async {
            // Over the own connection first: most processes learn here that there is nothing to do.
            let name = owner.clone();
            let lead = |store: Store| async move { store.lead(&name, LEAD, true).await };
            if leading || questions.call(lead).await? { maintenance.round().await } else { Ok(None) }
        };
        match asked.await {
            Ok(done) => {
                outage.over();
                if done.is_some() != leading {
                    leading = done.is_some();
                    debug!(leading, "who does the maintenance has changed");
                }
                match done {
                    Some(done) if !done.is_idle() => debug!(?done, "maintained"),
                    _ => {}
                }
            }
            Err(error) => {
                outage.failed(&error);
                leading = false;
            }
        }
    }
}
