//! Another database's table as a source: an old system has the items, nobody may change it, and the warehouse is told of each new
//! version of a row. Here the old system is a schema of the same database, unless SOURCE_URL says where it is.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example extract
//! ```

use std::{env, error::Error, time::Duration};

use doorbell::{
    Broker, Outcome, Settings,
    operate::{Extract, ExtractFrom, ForeignDatabase, Watermark},
};
use serde::Deserialize;
use tokio::sync::mpsc;

#[derive(Deserialize)]
struct Item {
    id: i64,
    name: String,
}

/// A row as it was when it was read.
#[derive(Deserialize)]
struct Read {
    new: Item,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let items = "create schema erp;
        create table erp.items (id bigint primary key, name text not null, changed_at timestamptz not null);
        insert into erp.items values (1, 'bell', now()), (2, 'rope', now())";
    in_the_old_system(&broker, items).await?;

    let source = match env::var("SOURCE_URL") {
        Ok(url) => Settings::parse(&url)?,
        Err(_) => Settings::from_env()?,
    };
    let source = ForeignDatabase::new(source);
    // Clocks there are right.
    let watermark = Watermark { grace: Duration::ZERO, every: Duration::from_secs(1), ..Watermark::new("changed_at") };
    let items = Extract {
        watermark: Some(watermark),
        record_type: Some("item".to_owned()),
        ..Extract::new("items", "warehouse", ExtractFrom::Table("erp.items".to_owned()))
    };
    let operator = broker.operator();
    operator.extract_from(&source, &items).await?;

    let (tell, mut told) = mpsc::unbounded_channel();
    let warehouse = broker.consumer("warehouse").on("item.read", move |read: Read, _delivery| {
        let told = tell.send(format!("item {}: {}", read.new.id, read.new.name));
        async move { Ok(told.map(|()| Outcome::Done)?) }
    });
    let warehouse = warehouse.start().await?;
    let handled = async {
        for at in 1..=3 {
            println!("{}", told.recv().await.ok_or("the consumer has ended")?);
            if at == 2 {
                let change = "update erp.items set name = 'long rope', changed_at = now() where id = 2";
                in_the_old_system(&broker, change).await?;
            }
        }
        Ok::<_, Box<dyn Error>>(())
    };
    tokio::select! {
        read = operator.keep_extracting(&source, "items") => read?,
        done = handled => done?,
    }
    warehouse.shutdown().await?;
    broker.close().await;
    Ok(())
}

async fn in_the_old_system(broker: &Broker, change: &str) -> Result<(), Box<dyn Error>> {
    let mut client = broker.client().await?;
    let tx = client.transaction().await?;
    tx.batch_execute(change).await?;
    Ok(tx.commit().await?)
}
