//! Silence is not death, and an id is not a message: servers that are away for longer than a lease, that come back with
//! less than they had promised, that step aside for a standby; consumers that freeze, block, or really die.
//!
//! One file per scenario.

mod batches;
mod blocked;
mod child;
mod frozen;
mod full_queue;
mod gone;
mod killed;
mod outages;
mod pace;
pub(crate) mod pair;
mod reused_ids;
mod silent_hosts;
mod stall;
mod timeline;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use doorbell::{Broker, Consumer, ConsumerConfig, Outcome, Settings};
use doorbell_server::{EphemeralOptions, Server};
use tokio::sync::Semaphore;
use tokio_postgres::Client;

use crate::support::{bells_only, count, until};

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
        let config = ConsumerConfig { handler_timeout: None, ..bells_only() };
        let consumer = broker.consumer(target).config(config).fallback(move |_| {
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

/// Waits until so many processes have renewed their lease twice from now on: each has then asked, after all were back, who is
/// to be rescued from.
async fn all_have_looked_around(client: &Client, processes: usize) {
    for _ in 0..3 {
        let now: String = client.query_one("select integration.clock()::text", &[]).await.unwrap().get(0);
        let beaten = format!("select count(*) >= {processes} from integration.processes where beat_at > '{now}'");
        until(client, "every process has renewed its lease", &beaten).await;
    }
}

/// Nothing has happened to messages whose handlers are under way, since nobody died.
async fn nothing_happened_to(client: &Client, messages: usize, when: &str) {
    let rows = client
        .query(
            "select format('%s %s attempt %s crash_count %s', id, status, attempt, crash_count) from integration.data_staging
              where not (status = 'processing' and attempt = 1 and crash_count = 0)",
            &[],
        )
        .await
        .unwrap();
    let harmed: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(harmed.is_empty(), "{when}, in which nobody died: {harmed:?}");
    assert_eq!(count(client, "select count(*) from integration.data_staging").await, messages as i64);
    let rescued = "select count(*) from integration.audit_log where action = 'rescued'";
    assert_eq!(count(client, rescued).await, 0, "{when}: rescued");
}
