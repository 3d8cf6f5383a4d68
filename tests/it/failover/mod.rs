//! Silence is not death, and an id is not a message: servers that are away for longer than a lease, that come back with
//! less than they had promised, that step aside for a standby; consumers that freeze, block, or really die.
//!
//! One file per scenario.

mod blocked;
mod child;
mod frozen;
mod killed;
mod pace;
mod stall;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use doorbell::{Broker, Consumer, Outcome, Settings};
use doorbell_server::{EphemeralOptions, Server};
use tokio::sync::Semaphore;

use crate::support::HOUR;

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

/// Handlers that are under way until the test lets them go.
#[derive(Clone)]
struct Long {
    gate: Arc<Semaphore>,
    begun: Arc<AtomicUsize>,
}

impl Default for Long {
    fn default() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), begun: Arc::default() }
    }
}

impl Long {
    /// A consumer of such handlers, which looks only when it is rung.
    async fn consumer(&self, broker: &Broker, target: &str) -> Consumer {
        let long = self.clone();
        let consumer = broker.consumer(target).sweep(HOUR).handler_timeout(None).fallback(move |_| {
            let long = long.clone();
            async move {
                long.begun.fetch_add(1, Ordering::SeqCst);
                let _open = long.gate.acquire().await?;
                Ok(Outcome::Done)
            }
        });
        consumer.start().await.unwrap()
    }

    /// How often a handler has begun.
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn let_go(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}
