//! Handles as many messages of `bulk_producer` as its argument says and prints their sum: 1 + 2 + … + n when none was
//! lost and none was handled twice.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --release --example bulk_consumer -- 100000
//! ```

use std::time::Instant;

use doorbell::{Broker, ConsumerConfig, Delivery, Error, Outcome};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let count: u64 = std::env::args().nth(1).map_or(10_000, |count| count.parse().expect("the argument is a number"));
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let (tell, mut told) = mpsc::unbounded_channel();
    let start = Instant::now();
    // Handlers this quick never wait for anything: more of them at a time make larger, cheaper claims.
    let config = ConsumerConfig { concurrency: 100, ..ConsumerConfig::default() };
    let consumer = broker.consumer("ledger").config(config).on("meter.read", move |reading: u64, _: Delivery| {
        // Nobody listens any more once enough were counted; the message is handled all the same.
        let _ = tell.send(reading);
        async { Ok(Outcome::Done) }
    });
    let mut sum = 0;
    consumer
        .run_until(async {
            for _ in 0..count {
                sum += told.recv().await.expect("the consumer runs");
            }
        })
        .await?;
    let seconds = start.elapsed().as_secs_f64();
    println!("handled {count} messages in {seconds:.2} s, {:.0} per second", count as f64 / seconds);
    println!("sum of the readings: {sum}");
    broker.close().await;
    Ok(())
}
