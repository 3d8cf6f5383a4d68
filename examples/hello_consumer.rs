//! The smallest consumer, as the README shows it; ends with Ctrl-C.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example hello_consumer
//! ```

use doorbell::{Broker, Outcome};

#[derive(serde::Deserialize)]
struct Order {
    id: u64,
    cents: u64,
}

#[tokio::main]
async fn main() -> Result<(), doorbell::Error> {
    let broker = Broker::from_env().await?;
    let billing = broker.consumer("billing").on("order.placed", |order: Order, _| async move {
        println!("charging {} cents for order {}", order.cents, order.id);
        Ok(Outcome::Done) // an Err is tried again later, Outcome::reject is not
    });
    billing.run_until(doorbell::shutdown_signal()).await?;
    broker.close().await; // says that this process is no more
    Ok(())
}
