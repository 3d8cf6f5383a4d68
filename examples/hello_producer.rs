//! The smallest producer: publishes one message per name.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example hello_producer -- Ada Grace
//! ```

use doorbell::{Broker, Error, Message};
use serde::Serialize;

#[derive(Serialize)]
struct Visitor {
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let producer = broker.producer("gate");
    for name in std::env::args().skip(1) {
        let message = Message::new("reception", "visitor.arrived", &Visitor { name })?;
        let id = producer.publish(&message).await?;
        println!("published message {id}");
    }
    broker.close().await;
    Ok(())
}
