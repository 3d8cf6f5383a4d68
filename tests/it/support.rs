//! One private server for the whole test binary, one database per test, cloned from a migrated template.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use doorbell::{
    Broker, BrokerConfig, Settings,
    server::{EphemeralOptions, Server},
};
use tokio_postgres::{Client, NoTls};

/// How long a test waits for an event that must come. Not an assertion about speed: a lost event would take for ever.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Its own runtime and thread, because every test has a runtime of its own that ends with it.
static SERVER: LazyLock<String> = LazyLock::new(|| {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let server =
                Server::ephemeral(EphemeralOptions { max_connections: 400, ..Default::default() }).await.unwrap();
            let admin = connect(&server.connection_string("postgres")).await;
            admin.batch_execute("create database template_doorbell").await.unwrap();
            let broker = Broker::connect(&server.connection_string("template_doorbell")).await.unwrap();
            broker.migrate().await.unwrap();
            broker.close().await;
            // Sealed: nobody may be connected to a database that is cloned.
            seal(&admin, "template_doorbell").await;
            tell.send(server.connection_string("postgres")).unwrap();
            std::future::pending::<()>().await;
        });
    });
    told.recv().expect("the test server starts")
});

async fn seal(admin: &Client, database: &str) {
    let sql = format!("alter database {database} with is_template true allow_connections false");
    admin.batch_execute(&sql).await.unwrap();
    let others = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1";
    while admin.query_one(others, &[&database]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
}

/// A database of its own.
pub(crate) struct Database {
    pub(crate) url: String,
}

impl Database {
    /// With the schema.
    pub(crate) async fn new() -> Self {
        Self::create("template template_doorbell").await
    }

    /// Without it.
    pub(crate) async fn empty() -> Self {
        Self::create("template template0").await
    }

    async fn create(options: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        // Blocks this test's thread while the server starts; the others wait for it, too.
        let base = tokio::task::spawn_blocking(|| SERVER.clone()).await.unwrap();
        let admin = connect(&base).await;
        admin.batch_execute(&format!("create database {name} {options}")).await.unwrap();
        Self { url: base.replace("dbname=postgres", &format!("dbname={name}")) }
    }

    pub(crate) async fn client(&self) -> Client {
        connect(&self.url).await
    }

    pub(crate) async fn broker(&self) -> Broker {
        Broker::connect(&self.url).await.unwrap()
    }

    pub(crate) async fn broker_with(&self, config: BrokerConfig) -> Broker {
        Broker::with_config(Settings::parse(&self.url).unwrap(), config).await.unwrap()
    }
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Waits for an event that must come; says which one did not.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, event).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen: {what}"),
    }
}

/// Asks the database until a boolean query is true. The only place that looks again and again: for states that nothing
/// announces.
pub(crate) async fn until(client: &Client, what: &str, query: &str) {
    soon(what, async {
        while !client.query_one(query, &[]).await.unwrap_or_else(|e| panic!("{query}: {e}")).get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) async fn count(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap_or_else(|e| panic!("{query}: {e}")).get(0)
}

/// A handler's side of a channel: what it handled, in order.
pub(crate) fn seen<T>() -> (tokio::sync::mpsc::UnboundedSender<T>, Seen<T>) {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    (tell, Seen(told))
}

pub(crate) struct Seen<T>(tokio::sync::mpsc::UnboundedReceiver<T>);

impl<T> Seen<T> {
    pub(crate) async fn next(&mut self) -> T {
        soon("a message is handled", self.0.recv()).await.expect("the consumer is still there")
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<T> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            all.push(self.next().await);
        }
        all
    }

    /// What has been seen and not been taken.
    pub(crate) fn rest(&mut self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.0.try_recv().ok())
    }
}
