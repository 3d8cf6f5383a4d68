//! The smallest consumer: greets until Ctrl-C, or until it has greeted as many visitors as its argument says.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example hello_consumer -- 2
//! ```

use std::sync::Arc;

use doorbell::{Broker, Delivery, Error, Outcome};
use serde::Deserialize;
use tokio::sync::Semaphore;

#[derive(Deserialize)]
struct Visitor {
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let greeted = Arc::new(Semaphore::new(0));
    let counter = greeted.clone();
    let consumer = broker.consumer("reception").on("visitor.arrived", move |visitor: Visitor, delivery: Delivery| {
        println!("hello {}, says message {} from the {}", visitor.name, delivery.id, delivery.source);
        counter.add_permits(1);
        async { Ok(Outcome::Done) }
    });
    match std::env::args().nth(1).map(|count| count.parse().expect("the argument is a number")) {
        None => consumer.run_until(doorbell::shutdown_signal()).await?,
        Some(count) => consumer.run_until(async move { drop(greeted.acquire_many(count).await) }).await?,
    }
    broker.close().await;
    Ok(())
}
