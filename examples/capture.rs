//! A table as a source: the shop writes into its own table and knows nothing of messages; search is told of every change, those of
//! a row in their order.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example capture
//! ```

use std::error::Error;

use doorbell::{Broker, Outcome, operate::Capture};
use serde::Deserialize;
use tokio::sync::mpsc;

#[derive(Deserialize)]
struct Item {
    name: String,
    cents: i64,
}

/// A row before and after.
#[derive(Deserialize)]
struct Change {
    old: Option<Item>,
    new: Option<Item>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let mut shop = broker.client().await?;
    let tx = shop.transaction().await?;
    tx.batch_execute("create table items (id bigint primary key, name text not null, cents bigint not null)").await?;
    tx.commit().await?;
    let items = Capture {
        table: "items".to_owned(),
        target: "search".to_owned(),
        record_type: Some("item".to_owned()),
        ..Capture::default()
    };
    broker.operator().capture(&items).await?;

    for (change, is_meant) in [
        ("insert into items values (1, 'bell', 990)", true),
        ("update items set cents = 1090 where id = 1", true),
        ("update items set cents = 0", false),
        ("delete from items where id = 1", true),
    ] {
        let tx = shop.transaction().await?;
        tx.batch_execute(change).await?;
        if is_meant {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
    }

    let (tell, mut told) = mpsc::unbounded_channel();
    let search = broker.consumer("search").fallback(move |delivery| {
        let tell = tell.clone();
        async move {
            let said = match delivery.json::<Change>()? {
                Change { old: Some(old), new: Some(new) } => {
                    format!("{}: {} -> {} cents", new.name, old.cents, new.cents)
                }
                Change { old: None, new: Some(new) } => format!("{}: {} cents", new.name, new.cents),
                Change { old, .. } => format!("{}: gone", old.map_or_else(String::new, |old| old.name)),
            };
            tell.send(format!("{} {said}", delivery.record_type))?;
            Ok(Outcome::Done)
        }
    });
    let search = search.start().await?;
    for _ in 0..3 {
        println!("{}", told.recv().await.ok_or("the consumer has ended")?);
    }
    search.shutdown().await?;
    broker.close().await;
    Ok(())
}
