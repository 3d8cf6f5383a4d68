//! Publishing and exactly-once effects in transactions of SQLx.
//!
//! ```text
//! cd examples/drivers; DATABASE_URL=postgres://localhost/app cargo run --bin with_sqlx
//! ```

use std::{env, error::Error};

use doorbell::{Broker, Message, Outcome, Statement};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use tokio::sync::mpsc;

const TABLES: [&str; 2] = [
    "create table if not exists orders (id bigint generated always as identity primary key, item text not null)",
    "create table if not exists invoices (order_id bigint not null, item text not null)",
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let pool = PgPool::connect(&env::var("DATABASE_URL")?).await?;
    for table in TABLES {
        sqlx::query(table).execute(&pool).await?;
    }

    for item in ["bell", "rope"] {
        let mut tx = pool.begin().await?;
        place_order(&mut tx, item).await?;
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
        let (pool, tell) = (pool.clone(), tell.clone());
        async move {
            let item = invoice(&pool, &order, &completion).await?;
            tell.send(item)?;
            Ok(Outcome::Settled)
        }
    });
    billing.run_until(async { println!("invoiced: {}", told.recv().await.unwrap_or_default()) }).await?;
    broker.close().await;
    Ok(())
}

/// Writes the order and the message about it; neither is there until the caller commits.
async fn place_order(tx: &mut PgConnection, item: &str) -> Result<(), Box<dyn Error>> {
    let insert = sqlx::query_scalar("insert into orders (item) values ($1) returning id").bind(item);
    let order: i64 = insert.fetch_one(&mut *tx).await?;
    let placed = Message::new("billing", "order.placed", &json!({"order": order, "item": item}))?.statement("shop")?;
    sqlx::query(placed.sql()).bind(placed.value()).execute(tx).await?;
    Ok(())
}

/// Writes the invoice and completes the message; whatever fails, the commit included, leaves neither, and is tried
/// again.
async fn invoice(pool: &PgPool, order: &Value, completion: &Statement) -> Result<String, Box<dyn Error + Send + Sync>> {
    let item = order["item"].as_str().ok_or("an order without an item")?;
    let mut tx = pool.begin().await?;
    let insert = sqlx::query("insert into invoices values ($1, $2)").bind(order["order"].as_i64()).bind(item);
    insert.execute(&mut *tx).await?;
    sqlx::query(completion.sql()).bind(completion.value()).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(item.to_owned())
}
