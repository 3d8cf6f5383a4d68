//! Questions and answers: the shop asks for prices, the pricing service replies, and what it cannot price it rejects.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example request
//! ```

use std::time::Duration;

use doorbell::{Answer, Broker, Error, Message, Outcome};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let pricing = broker.consumer("pricing").on_request("price.ask", |item: u64, _delivery, replier| async move {
        Ok(match item {
            7 => replier.reply(&990).await?,
            item => Outcome::reject(format!("there is no item {item}")),
        })
    });
    let pricing = pricing.start().await?;

    let shop = broker.producer("shop");
    for item in [7, 8] {
        let question = Message::new("pricing", "price.ask", &item)?;
        match shop.request::<u64>(&question, Duration::from_secs(30)).await? {
            Answer::Reply(cents) => println!("item {item} costs {cents} cents"),
            Answer::Failed { reason } => println!("item {item} has no price: {reason}"),
            other => println!("item {item}: {other:?}"),
        }
    }

    pricing.shutdown().await?;
    // Nobody is there any more: the question is withdrawn when the time is over.
    let question = Message::new("pricing", "price.ask", &7)?;
    let answer = shop.request::<u64>(&question, Duration::from_millis(200)).await?;
    println!("when nobody is there: {answer:?}");
    broker.close().await;
    Ok(())
}
