//! A user is told what has changed once nothing has for a while, and then only the latest: each publish under the same
//! coalesce key replaces the message that waits, and puts it off.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example coalesce
//! ```

use std::time::Duration;

use doorbell::{Broker, Message, Outcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let producer = broker.producer("shop");
    for unread in 1..=20u32 {
        for user in ["ada", "bob"] {
            // Half a second after the last of them, and five after the first whatever comes.
            let digest = Message::new("mailer", "digest", &(user, unread))?.coalesce(user);
            producer.publish(&digest.delay(Duration::from_millis(500)).max_wait(Duration::from_secs(5))).await?;
        }
    }

    let mailer = broker.consumer("mailer").on("digest", |(user, unread): (String, u32), _delivery| async move {
        println!("{user} has {unread} unread messages");
        Ok(Outcome::Done)
    });
    let mailer = mailer.start().await?;
    while broker.operator().stats().await?.iter().any(|target| target.completed < 2) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mailer.shutdown().await?;
    broker.close().await;
    Ok(())
}
