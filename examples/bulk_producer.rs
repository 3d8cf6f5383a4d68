//! Publishes many messages, a thousand per transaction, as fast as one connection does it.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --release --example bulk_producer -- 100000
//! ```

use std::time::Instant;

use doorbell::{Broker, Error, Message};

/// All or nothing per call: what is published together fails together.
const BATCH: u64 = 1000;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let count: u64 = std::env::args().nth(1).map_or(10_000, |count| count.parse().expect("the argument is a number"));
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let producer = broker.producer("meter");
    let start = Instant::now();
    for first in (1..=count).step_by(BATCH as usize) {
        let batch: Result<Vec<Message>, Error> = (first..=count.min(first + BATCH - 1))
            .map(|reading| Message::new("ledger", "meter.read", &reading))
            .collect();
        producer.publish_many(&batch?).await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("published {count} messages in {seconds:.2} s, {:.0} per second", count as f64 / seconds);
    broker.close().await;
    Ok(())
}
