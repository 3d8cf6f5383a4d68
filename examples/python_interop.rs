//! The Rust half of a conversation with `examples/python/seed_client.py`, which knows nothing but the table.
//!
//! ```text
//! cargo run --example python_interop -- produce 3     # then: python seed_client.py consume 3
//! cargo run --example python_interop -- consume 3     # after: python seed_client.py produce 3
//! ```

use std::sync::Arc;

use doorbell::{Broker, Delivery, Error, Message, Outcome};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

#[derive(Serialize, Deserialize)]
struct Reading {
    n: u32,
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count = arguments.get(1).map_or(3, |count| count.parse().expect("the second argument is a number"));
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    match arguments.first().map(String::as_str) {
        Some("produce") => produce(&broker, count).await?,
        Some("consume") => consume(&broker, count).await?,
        _ => println!("usage: python_interop produce|consume [COUNT]"),
    }
    broker.close().await;
    Ok(())
}

async fn produce(broker: &Broker, count: u32) -> Result<(), Error> {
    let producer = broker.producer("rust-app");
    for n in 1..=count {
        let reading = Reading { n, text: "from Rust: \"grüße\"".to_owned() };
        let id = producer.publish(&Message::new("python-app", "reading", &reading)?).await?;
        println!("published message {id} for python-app");
    }
    Ok(())
}

async fn consume(broker: &Broker, count: u32) -> Result<(), Error> {
    let handled = Arc::new(Semaphore::new(0));
    let counter = handled.clone();
    let handle = move |reading: Reading, delivery: Delivery| {
        println!("reading {} from {}: {}", reading.n, delivery.source, reading.text);
        counter.add_permits(1);
        async { Ok(Outcome::Done) }
    };
    let consumer = broker.consumer("rust-app").on("reading", handle);
    consumer.run_until(async move { drop(handled.acquire_many(count).await) }).await
}
