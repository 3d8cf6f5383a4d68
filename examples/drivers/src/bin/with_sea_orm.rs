//! Publishing and exactly-once effects in transactions of SeaORM.
//!
//! ```text
//! cd examples/drivers; DATABASE_URL=postgres://localhost/app cargo run --bin with_sea_orm
//! ```

use std::{env, error::Error};

use doorbell::{Broker, Message, Outcome};
use sea_orm::{
    ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, Statement, TransactionTrait,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const TABLES: [&str; 2] = [
    "create table if not exists orders (id bigint generated always as identity primary key, item text not null)",
    "create table if not exists invoices (order_id bigint not null, item text not null)",
];

/// A statement of Doorbell's as one of SeaORM's.
fn ours(statement: &doorbell::Statement) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, statement.sql(), [statement.value().into()])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let database = Database::connect(env::var("DATABASE_URL")?).await?;
    for table in TABLES {
        database.execute_unprepared(table).await?;
    }

    for item in ["bell", "rope"] {
        let tx = database.begin().await?;
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
        let (database, tell) = (database.clone(), tell.clone());
        async move {
            let item = invoice(&database, &order, &completion).await?;
            tell.send(item)?;
            Ok(Outcome::Settled)
        }
    });
    billing.run_until(async { println!("invoiced: {}", told.recv().await.unwrap_or_default()) }).await?;
    broker.close().await;
    Ok(())
}

/// Writes the order and the message about it; neither is there until the caller commits.
async fn place_order(tx: &DatabaseTransaction, item: &str) -> Result<(), Box<dyn Error>> {
    let insert = "insert into orders (item) values ($1) returning id";
    let insert = Statement::from_sql_and_values(DbBackend::Postgres, insert, [item.into()]);
    let order = tx.query_one(insert).await?.ok_or(DbErr::RecordNotInserted)?;
    let order: i64 = order.try_get("", "id")?;
    let placed = Message::new("billing", "order.placed", &json!({"order": order, "item": item}))?;
    tx.execute(ours(&placed.statement("shop")?)).await?;
    Ok(())
}

/// Writes the invoice and completes the message; whatever fails, the commit included, leaves neither, and is tried
/// again.
async fn invoice(
    database: &DatabaseConnection,
    order: &Value,
    completion: &doorbell::Statement,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let item = order["item"].as_str().ok_or("an order without an item")?;
    let tx = database.begin().await?;
    let values = [order["order"].as_i64().into(), item.into()];
    tx.execute(Statement::from_sql_and_values(DbBackend::Postgres, "insert into invoices values ($1, $2)", values))
        .await?;
    tx.execute(ours(completion)).await?;
    tx.commit().await?;
    Ok(item.to_owned())
}
