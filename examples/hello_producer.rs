//! The smallest producer, as the README shows it.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example hello_producer
//! ```

use doorbell::{Broker, Message};

#[tokio::main]
async fn main() -> Result<(), doorbell::Error> {
    let broker = Broker::from_env().await?; // DATABASE_URL
    broker.migrate().await?; // makes the schema, or changes nothing
    let order = serde_json::json!({ "id": 7, "cents": 1250 });
    let id = broker.producer("shop").publish(&Message::new("billing", "order.placed", &order)?).await?;
    println!("published message {id}");
    Ok(())
}
