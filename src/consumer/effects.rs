//! Transactional handlers of leased messages.

use tracing::{debug, warn};

use super::{
    batch::{self, Source, Undone},
    context::Context,
    running::Ran,
};
use crate::{error::is_conflict, handler::chain, message::Delivery, outcome::Outcome};

/// Runs them in one transaction, and each in its own when that did not end well. In the order given.
pub(super) async fn run(context: &Context, deliveries: &[Delivery]) -> Vec<Ran> {
    let count = deliveries.len();
    if count > 1 {
        match batch::run(context, Source::Leased(deliveries)).await {
            Ok(Ok(_)) => return vec![Ran::Completed; count],
            Ok(Err(_)) => debug!(count, "a batch was rolled back; its messages run one by one"),
            Err(error) => {
                warn!(target_app = %context.target, count, ?error, "a batch failed; its messages run one by one");
            }
        }
    }
    let mut ran = Vec::with_capacity(count);
    for delivery in deliveries {
        ran.push(match batch::run(context, Source::Leased(std::slice::from_ref(delivery))).await {
            Ok(Ok(_)) => Ran::Completed,
            Ok(Err(Undone::Handler(outcome))) => Ran::Outcome(outcome),
            Ok(Err(Undone::NotOurs)) => Ran::LeaseLost,
            Err(error) if is_conflict(&error) => Ran::Outcome(batch::after_a_conflict()),
            Err(error) => Ran::Outcome(Outcome::retry(format!("the transaction failed: {}", chain(&error)))),
        });
    }
    ran
}
