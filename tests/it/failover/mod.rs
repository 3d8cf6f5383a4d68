//! Silence is not death, and an id is not a message: servers that are away for longer than a lease, that come back with
//! less than they had promised, that step aside for a standby; consumers that freeze, block, or really die.
//!
//! One file per scenario.

mod blocked;
mod child;
mod frozen;
mod killed;
mod pace;

use doorbell::{Broker, Settings};
use doorbell_server::{EphemeralOptions, Server};

/// A private server with the schema, for who stops it.
async fn server() -> (Server, String) {
    let server = Server::ephemeral(EphemeralOptions { durable: true, ..Default::default() }).await.unwrap();
    let url = server.connection_string("postgres");
    Broker::connect(&url).await.unwrap().migrate().await.unwrap();
    (server, url)
}

async fn broker(url: &str) -> Broker {
    Broker::with_config(Settings::parse(url).unwrap(), pace::config()).await.unwrap()
}
