//! Orders are copied into a table of the warehouse, many at a time and each exactly once: the effects of a batch and the completion
//! of its messages are one transaction.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example batches
//! ```

use std::{pin::pin, time::Duration};

use doorbell::{Batch, BatchOutcome, BatchResult, Broker, Delivery, Error, Message, Outcome};
use futures::SinkExt;
use serde::{Deserialize, Serialize};
use tokio_postgres::Transaction;

#[derive(Deserialize, Serialize)]
struct Order {
    id: u64,
    cents: i64,
}

/// Rejects orders of nothing, and copies the others. Where one is rejected nothing is written, and the others come again.
async fn load(orders: Vec<(Order, Delivery)>, tx: &Transaction<'_>) -> BatchResult {
    println!("a batch of {}", orders.len());
    let mut outcome = BatchOutcome::done();
    for (order, delivery) in orders.iter().filter(|(order, _)| order.cents == 0) {
        outcome.set(delivery.id, Outcome::reject(format!("order {} is one of nothing", order.id)));
    }
    let mut table = pin!(tx.copy_in("copy warehouse (id, cents) from stdin").await?);
    let lines: String = orders.iter().map(|(order, _)| format!("{}\t{}\n", order.id, order.cents)).collect();
    table.send(bytes::Bytes::from(lines)).await?;
    table.finish().await?;
    Ok(outcome)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let mut client = broker.client().await?;
    let tx = client.transaction().await?;
    tx.batch_execute("create table if not exists warehouse (id bigint, cents bigint)").await?;
    tx.commit().await?;

    let orders = (1..=1000).map(|id| Order { id, cents: if id == 7 { 0 } else { 100 } });
    let orders: Result<Vec<Message>, Error> =
        orders.map(|order| Message::new("warehouse", "order.placed", &order)).collect();
    broker.producer("shop").publish_many(&orders?).await?;

    // One batch at a time; while it is not full, a message waits 100 ms for others.
    let config = doorbell::ConsumerConfig { concurrency: 1, ..Default::default() };
    let batch = Batch::of(500).linger(Duration::from_millis(100));
    let warehouse = broker.consumer("warehouse").config(config);
    let warehouse = warehouse.on_batch_tx("order.placed", batch, |orders, tx| Box::pin(load(orders, tx)));
    let warehouse = warehouse.start().await?;
    while !broker.operator().is_drained("warehouse", None).await? {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    warehouse.shutdown().await?;

    let tx = client.transaction().await?;
    let row = tx.query_one("select count(*), sum(cents)::bigint from warehouse", &[]).await?;
    println!("{} orders of {} cents are in the warehouse", row.get::<_, i64>(0), row.get::<_, i64>(1));
    broker.close().await;
    Ok(())
}
