//! Publishing and exactly-once effects in transactions of diesel-async.
//!
//! ```text
//! cd examples/drivers; DATABASE_URL=postgres://localhost/app cargo run --bin with_diesel_async
//! ```

use std::{env, error::Error};

use diesel::{
    QueryableByName, result, sql_query,
    sql_types::{BigInt, Text},
};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, RunQueryDsl,
    pooled_connection::{AsyncDieselConnectionManager, deadpool::Pool},
};
use doorbell::{Broker, Message, Outcome, Statement};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const TABLES: [&str; 2] = [
    "create table if not exists orders (id bigint generated always as identity primary key, item text not null)",
    "create table if not exists invoices (order_id bigint not null, item text not null)",
];

#[derive(QueryableByName)]
struct Order {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let pool =
        Pool::builder(AsyncDieselConnectionManager::<AsyncPgConnection>::new(env::var("DATABASE_URL")?)).build()?;
    let mut connection = pool.get().await?;
    for table in TABLES {
        sql_query(table).execute(&mut connection).await?;
    }

    for item in ["bell", "rope"] {
        let placed = connection.transaction(async |tx| {
            place_order(tx, item).await?;
            if item == "rope" { Err(result::Error::RollbackTransaction.into()) } else { Ok(()) }
        });
        let placed: Result<(), Box<dyn Error + Send + Sync>> = placed.await;
        println!("{item}: {}", if placed.is_ok() { "committed" } else { "rolled back" });
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
async fn place_order(tx: &mut AsyncPgConnection, item: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let insert = sql_query("insert into orders (item) values ($1) returning id").bind::<Text, _>(item);
    let order: Order = insert.get_result(tx).await?;
    let placed = Message::new("billing", "order.placed", &json!({"order": order.id, "item": item}))?;
    let placed = placed.statement("shop")?;
    sql_query(placed.sql()).bind::<Text, _>(placed.value()).execute(tx).await?;
    Ok(())
}

/// Writes the invoice and completes the message; whatever fails, the commit included, leaves neither, and is tried
/// again.
async fn invoice(
    pool: &Pool<AsyncPgConnection>,
    order: &Value,
    completion: &Statement,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let id = order["order"].as_i64().ok_or("an order without a number")?;
    let item = order["item"].as_str().ok_or("an order without an item")?;
    let insert = sql_query("insert into invoices values ($1, $2)").bind::<BigInt, _>(id).bind::<Text, _>(item);
    let mut connection = pool.get().await?;
    let committed = connection.transaction(async |tx| {
        insert.execute(tx).await?;
        sql_query(completion.sql()).bind::<Text, _>(completion.value()).execute(tx).await
    });
    committed.await?;
    Ok(item.to_owned())
}
