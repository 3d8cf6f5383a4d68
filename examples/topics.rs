//! One event for several services: the shop publishes to a topic, billing and the mailer each get a copy, and the warehouse,
//! which comes later, gets what was published before it, too.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example topics
//! ```

use std::time::Duration;

use doorbell::{
    Broker, Consumer, Delivery, Error, Message, Outcome,
    operate::{Moment, Subscription},
};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let operator = broker.operator();
    let subscribe = |target: &str, types: &[&str], since| Subscription {
        topic: "orders".to_owned(),
        target: target.to_owned(),
        types: types.iter().map(|name| (*name).to_owned()).collect(),
        since,
        ..Subscription::default()
    };
    operator.subscribe(&subscribe("billing", &[], None)).await?;
    operator.subscribe(&subscribe("mailer", &["order.placed"], None)).await?;

    let (tell, mut handled) = mpsc::unbounded_channel();
    let billing = service(&broker, "billing", tell.clone()).await?;
    let mailer = service(&broker, "mailer", tell.clone()).await?;
    let shop = broker.producer("shop");
    for (record_type, number) in [("order.placed", 1), ("order.placed", 2), ("order.paid", 1)] {
        shop.publish(&Message::new("orders", record_type, &number)?).await?;
    }
    // Three for billing, two for the mailer.
    for _ in 0..5 {
        handled.recv().await;
    }

    let warehouse = service(&broker, "warehouse", tell).await?;
    let an_hour = Moment::Ago(Duration::from_secs(3600));
    operator.subscribe(&subscribe("warehouse", &["order.*"], Some(an_hour))).await?;
    for _ in 0..3 {
        // Consumers do the maintenance, too, within a few seconds.
        handled.recv().await;
    }

    for consumer in [billing, mailer, warehouse] {
        consumer.shutdown().await?;
    }
    broker.close().await;
    Ok(())
}

/// Says what it gets.
async fn service(broker: &Broker, name: &'static str, tell: mpsc::UnboundedSender<()>) -> Result<Consumer, Error> {
    let consumer = broker.consumer(name).fallback(move |delivery: Delivery| {
        println!("{name}: {} {}", delivery.record_type, delivery.payload());
        let told = tell.send(());
        async move { Ok(told.map(|()| Outcome::Done)?) }
    });
    consumer.start().await
}
