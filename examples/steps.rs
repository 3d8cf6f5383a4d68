//! An order is charged by the bank and shipped by the warehouse. Shipping fails at first, and the retry does not charge again.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example steps
//! ```

use std::time::Duration;

use doorbell::{Broker, Error, HandlerError, HandlerResult, Message, Outcome};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Order {
    id: u64,
    cents: u64,
}

#[derive(Deserialize, Serialize)]
struct Receipt {
    number: u64,
}

/// Another system. The key is the same in each attempt, so that it can tell whether it has charged that already.
async fn charge(order: &Order, _idempotency_key: &str) -> Result<Receipt, HandlerError> {
    println!("the bank charges {} cents", order.cents);
    Ok(Receipt { number: 3141 })
}

/// Yet another one.
async fn ship(order: &Order, receipt: &Receipt, attempt: i32) -> Result<(), HandlerError> {
    if attempt == 1 {
        return Err("the van is full".into());
    }
    println!("the warehouse ships order {}, paid with receipt {}", order.id, receipt.number);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let order = Message::new("orders", "order.placed", &Order { id: 7, cents: 1250 })?;
    let id = broker.producer("shop").publish(&order).await?;

    let orders = broker.consumer("orders").on_steps("order.placed", |order: Order, delivery, steps| async move {
        let handled: HandlerResult = async {
            let key = delivery.effect_key("charge");
            let receipt: Receipt = steps.run("charge", async || charge(&order, &key).await).await?;
            steps.run("ship", async || ship(&order, &receipt, delivery.attempt).await).await?;
            Ok(Outcome::Done)
        }
        .await;
        // The error alone would do, and the retry come after a second.
        handled.or_else(|error| {
            println!("attempt {}: {error}", delivery.attempt);
            Ok(Outcome::retry_after(Duration::from_millis(50), error.to_string()))
        })
    });
    let orders = orders.start().await?;
    let mut done = Vec::new();
    while done.len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        done = broker.operator().steps(id, false).await?;
    }
    orders.shutdown().await?;

    for step in done {
        println!("{} was done by attempt {}", step.name, step.attempt);
    }
    broker.close().await;
    Ok(())
}
