//! The transactional outbox: an order and the message about it are written in one transaction, so they appear together
//! or not at all. And the other end: an invoice that is written in the transaction which completes the message, so that
//! there is one invoice per order, whatever dies in between.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example outbox
//! ```

use std::error::Error;

use doorbell::{Broker, Message, Outcome, Producer};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_postgres::Transaction;

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order: i64,
    item: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let mut shop = broker.client().await?;
    let tx = shop.transaction().await?;
    tx.batch_execute(
        "create table if not exists orders (id bigint generated always as identity primary key, item text not null);
         create table if not exists invoices (id bigint generated always as identity primary key, order_id bigint not null)",
    )
    .await?;
    tx.commit().await?;
    let producer = broker.producer("shop");

    let tx = shop.transaction().await?;
    let bell = place_order(&tx, &producer, "bell").await?;
    tx.commit().await?;
    println!("order {bell} (bell): committed");

    let tx = shop.transaction().await?;
    let rope = place_order(&tx, &producer, "rope").await?;
    tx.rollback().await?;
    println!("order {rope} (rope): rolled back");

    let tx = shop.transaction().await?;
    let clapper = place_order(&tx, &producer, "clapper").await?;
    tx.commit().await?;
    println!("order {clapper} (clapper): committed");

    for item in invoice(&broker, 2).await? {
        println!("invoiced: {item}");
    }
    broker.close().await;
    Ok(())
}

/// Writes the order and the message about it; neither is there until the caller commits.
async fn place_order(tx: &Transaction<'_>, producer: &Producer, item: &str) -> Result<i64, Box<dyn Error>> {
    let order = tx.query_one("insert into orders (item) values ($1) returning id", &[&item]).await?.get(0);
    let placed = OrderPlaced { order, item: item.to_owned() };
    producer.publish_in(tx, &Message::new("billing", "order.placed", &placed)?).await?;
    Ok(order)
}

/// Consumes until `count` invoices are written; returns their items, sorted. The handler's transaction belongs to the
/// broker, which completes the message in it and commits: should that fail, the invoice is gone, too, and both are tried
/// again.
async fn invoice(broker: &Broker, count: usize) -> Result<Vec<String>, doorbell::Error> {
    let (tell, mut told) = mpsc::unbounded_channel();
    let consumer = broker.consumer("billing").on_tx("order.placed", move |placed: OrderPlaced, _delivery, tx| {
        let tell = tell.clone();
        Box::pin(async move {
            tx.execute("insert into invoices (order_id) values ($1)", &[&placed.order]).await?;
            tell.send(placed.item)?;
            Ok(Outcome::Done)
        })
    });
    let mut items = Vec::new();
    consumer
        .run_until(async {
            while items.len() < count {
                items.extend(told.recv().await);
            }
        })
        .await?;
    items.sort();
    Ok(items)
}
