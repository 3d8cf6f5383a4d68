//! A supplier may be called twice an hour, by all processes together. What comes after that waits, and says why.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example rates
//! ```

use doorbell::{Broker, Message, Outcome};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    // As `doorbell target set supplier rate_max=2 rate_per=1h` does.
    broker.operator().set_target("supplier", r#"{"rate_max": 2, "rate_per": "1 hour"}"#).await?;

    let orders: Result<Vec<Message>, _> =
        (1..=5).map(|order| Message::new("supplier", "order.placed", &order)).collect();
    let ids = broker.producer("shop").publish_many(&orders?).await?;

    let (called, mut calls) = mpsc::unbounded_channel();
    let supplier = broker.consumer("supplier").on("order.placed", move |order: u64, _| {
        let called = called.clone();
        async move {
            called.send(order)?;
            Ok(Outcome::Done)
        }
    });
    let supplier = supplier.start().await?;
    for _ in 0..2 {
        println!("the supplier is called for order {}", calls.recv().await.ok_or("the consumer has ended")?);
    }
    // The first is the cause.
    println!("order 5 waits: {}", broker.operator().explain(ids[4]).await?[0].code);
    supplier.shutdown().await?;
    broker.close().await;
    Ok(())
}
