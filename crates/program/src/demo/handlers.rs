//! What the consumers of the demo do: check the order, and write into the ledger that it was handled.

use std::time::Duration;

use doorbell::{Broker, ConsumerBuilder, Outcome};
use tokio::time::sleep;

use super::{ledger::Ledger, orders::Placed};

/// The consumer of a target with its handlers; each takes at least `handling`.
pub(super) fn consumer(broker: &Broker, target: &str, ledger: &Ledger, handling: Duration) -> ConsumerBuilder {
    let (placed, other) = (ledger.clone(), ledger.clone());
    broker
        .consumer(target)
        .on("order.placed", move |order: Placed, delivery| {
            let ledger = placed.clone();
            async move {
                sleep(handling).await;
                order.check()?;
                ledger.note(delivery.id).await?;
                Ok(Outcome::Done)
            }
        })
        .fallback(move |delivery| {
            let ledger = other.clone();
            async move {
                sleep(handling).await;
                ledger.note(delivery.id).await?;
                Ok(Outcome::Done)
            }
        })
}
