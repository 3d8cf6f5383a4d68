//! Publishing and exactly-once effects in transactions of a tokio-postgres that Doorbell does not pool.
//!
//! ```text
//! cd examples/drivers; DATABASE_URL=postgres://localhost/app cargo run --bin with_tokio_postgres
//! ```

use std::{env, error::Error};

use doorbell::{Broker, Message, Outcome, Statement};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_postgres::{Client, NoTls, Transaction};

const TABLES: &str = "
    create table if not exists orders (id bigint generated always as identity primary key, item text not null);
    create table if not exists invoices (order_id bigint not null, item text not null)";

async fn connect() -> Result<Client, Box<dyn Error + Send + Sync>> {
    let (client, connection) = tokio_postgres::connect(&env::var("DATABASE_URL")?, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let mut client = connect().await?;
    client.batch_execute(TABLES).await?;

    for item in ["bell", "rope"] {
        let tx = client.transaction().await?;
        place_order(&tx, item).await?;
        if item == "rope" {
            tx.rollback().await?;
            println!("{item}: rolled back");
        } else {
            tx.commit().await?;
            println!("{item}: committed");
        }
    }

    let (tell, mut told) = mpsc::unbounded_channel();
    let billing = broker.consumer("billing").on_own_tx("order.placed", move |order: Value, _, completion| {
        let tell = tell.clone();
        async move {
            let item = invoice(connect().await?, &order, &completion).await?;
            tell.send(item)?;
            Ok(Outcome::Settled)
        }
    });
    billing.run_until(async { println!("invoiced: {}", told.recv().await.unwrap_or_default()) }).await?;
    broker.close().await;
    Ok(())
}

/// Writes the order and the message about it; neither is there until the caller commits. `Producer::publish_in` does
/// the same, where the program has the broker at hand.
async fn place_order(tx: &Transaction<'_>, item: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let order: i64 = tx.query_one("insert into orders (item) values ($1) returning id", &[&item]).await?.get(0);
    let placed = Message::new("billing", "order.placed", &json!({"order": order, "item": item}))?.statement("shop")?;
    tx.execute(placed.sql(), &[&placed.value()]).await?;
    Ok(())
}

/// Writes the invoice and completes the message; whatever fails, the commit included, leaves neither, and is tried
/// again.
async fn invoice(
    mut client: Client,
    order: &Value,
    completion: &Statement,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let item = order["item"].as_str().ok_or("an order without an item")?;
    let tx = client.transaction().await?;
    tx.execute("insert into invoices values ($1, $2)", &[&order["order"].as_i64(), &item]).await?;
    tx.execute(completion.sql(), &[&completion.value()]).await?;
    tx.commit().await?;
    Ok(item.to_owned())
}
