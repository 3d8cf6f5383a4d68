//! Publishing and exactly-once effects in transactions of Diesel, whose connections block: handlers work on threads.
//!
//! ```text
//! cd examples/drivers; DATABASE_URL=postgres://localhost/app cargo run --bin with_diesel
//! ```

use std::{env, error::Error};

use diesel::{
    Connection, PgConnection, QueryableByName, RunQueryDsl,
    r2d2::{ConnectionManager, Pool},
    result, sql_query,
    sql_types::{BigInt, Text},
};
use doorbell::{Broker, Message, Outcome, Statement};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::spawn_blocking};

const TABLES: [&str; 2] = [
    "create table if not exists orders (id bigint generated always as identity primary key, item text not null)",
    "create table if not exists invoices (order_id bigint not null, item text not null)",
];

#[derive(QueryableByName)]
struct Order {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

type PgPool = Pool<ConnectionManager<PgConnection>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let pool = Pool::builder().max_size(4).build(ConnectionManager::<PgConnection>::new(env::var("DATABASE_URL")?))?;
    let shop = pool.clone();
    spawn_blocking(move || place_orders(&shop)).await??;

    let (tell, mut told) = mpsc::unbounded_channel();
    let billing = broker.consumer("billing").on_own_tx("order.placed", move |order: Value, _, completion| {
        let (pool, tell) = (pool.clone(), tell.clone());
        async move {
            let item = spawn_blocking(move || invoice(&pool, &order, &completion)).await??;
            tell.send(item)?;
            Ok(Outcome::Settled)
        }
    });
    billing.run_until(async { println!("invoiced: {}", told.recv().await.unwrap_or_default()) }).await?;
    broker.close().await;
    Ok(())
}

fn place_orders(pool: &PgPool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut connection = pool.get()?;
    for table in TABLES {
        sql_query(table).execute(&mut connection)?;
    }
    for item in ["bell", "rope"] {
        let placed = connection.transaction(|tx| {
            place_order(tx, item)?;
            if item == "rope" { Err(result::Error::RollbackTransaction.into()) } else { Ok(()) }
        });
        let placed: Result<(), Box<dyn Error + Send + Sync>> = placed;
        println!("{item}: {}", if placed.is_ok() { "committed" } else { "rolled back" });
    }
    Ok(())
}

/// Writes the order and the message about it; neither is there until the caller commits.
fn place_order(tx: &mut PgConnection, item: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let insert = sql_query("insert into orders (item) values ($1) returning id").bind::<Text, _>(item);
    let order: Order = insert.get_result(tx)?;
    let placed = Message::new("billing", "order.placed", &json!({"order": order.id, "item": item}))?;
    let placed = placed.statement("shop")?;
    sql_query(placed.sql()).bind::<Text, _>(placed.value()).execute(tx)?;
    Ok(())
}

/// Writes the invoice and completes the message; whatever fails, the commit included, leaves neither, and is tried
/// again.
fn invoice(pool: &PgPool, order: &Value, completion: &Statement) -> Result<String, Box<dyn Error + Send + Sync>> {
    let id = order["order"].as_i64().ok_or("an order without a number")?;
    let item = order["item"].as_str().ok_or("an order without an item")?;
    pool.get()?.transaction(|tx| {
        let insert = sql_query("insert into invoices values ($1, $2)").bind::<BigInt, _>(id).bind::<Text, _>(item);
        insert.execute(tx)?;
        sql_query(completion.sql()).bind::<Text, _>(completion.value()).execute(tx)
    })?;
    Ok(item.to_owned())
}
