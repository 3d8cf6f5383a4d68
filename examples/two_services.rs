//! Two services in one process: the shop places orders, billing charges them and tells shipping, shipping ships.
//! Each could run in a program of its own without a change: they only share the database.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example two_services
//! ```

use doorbell::{Broker, Consumer, Delivery, Error, Message, Outcome};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct Order {
    number: u32,
    cents: u64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let (tell, mut shipped) = mpsc::unbounded_channel();
    let billing = billing(&broker).await?;
    let shipping = shipping(&broker, tell).await?;

    let shop = broker.producer("shop");
    for (number, cents) in [(1, 1250), (2, 0), (3, 990)] {
        shop.publish(&Message::new("billing", "order.placed", &Order { number, cents })?).await?;
        println!("shop: placed order {number}");
    }
    // Order 2 is refused, so two are shipped.
    for _ in 0..2 {
        shipped.recv().await;
    }

    billing.shutdown().await?;
    shipping.shutdown().await?;
    for target in broker.operator().stats().await? {
        println!("{}: {} completed, {} failed", target.target, target.completed, target.failed);
    }
    broker.close().await;
    Ok(())
}

/// Charges orders and publishes what is paid.
async fn billing(broker: &Broker) -> Result<Consumer, Error> {
    let producer = broker.producer("billing");
    let charge = move |order: Order, delivery: Delivery| {
        let producer = producer.clone();
        async move {
            if order.cents == 0 {
                println!("billing: order {} has no amount", order.number);
                return Ok(Outcome::reject("nothing to charge"));
            }
            println!("billing: charged order {}", order.number);
            // Named after the message it follows from: if this handler runs again for the same message, the second
            // publish answers with the first one's id.
            let paid = Message::new("shipping", "order.paid", &order)?.dedup_key(format!("paid-{}", delivery.id));
            producer.publish(&paid).await?;
            Ok(Outcome::Done)
        }
    };
    broker.consumer("billing").on("order.placed", charge).start().await
}

/// Ships what is paid and tells its number.
async fn shipping(broker: &Broker, shipped: mpsc::UnboundedSender<u32>) -> Result<Consumer, Error> {
    let ship = move |order: Order, _: Delivery| {
        println!("shipping: shipped order {}", order.number);
        let told = shipped.send(order.number);
        async move { Ok(told.map(|()| Outcome::Done)?) }
    };
    broker.consumer("shipping").on("order.paid", ship).start().await
}
