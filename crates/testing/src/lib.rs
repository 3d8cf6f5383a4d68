//! What the tests of this workspace share: one private server for the whole test binary, one database per test, cloned
//! from a migrated template; and ways to wait for events.

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "for this workspace only: what a name does not say is said"
)]

pub mod browser;
pub mod logs;
pub mod newer;
pub mod pooler;
pub mod proxy;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use doorbell::{
    Broker, BrokerConfig, Consumer, ConsumerConfig, Delivery, Message, MessageId, Outcome, Producer, Settings,
    observe::Found,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{OnceCell, mpsc},
};
use tokio_postgres::{AsyncMessage, Client, NoTls};

/// How long a test waits for an event that must come. Not an assertion about speed: a lost event would take for ever, and a machine
/// that does ten other things takes its time.
pub const SOON: Duration = Duration::from_secs(180);

/// The sweep of a consumer that is to be woken by the bell: nothing but a notification explains that it wakes.
pub const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

/// A consumer with that sweep, and the defaults.
pub fn bells_only() -> ConsumerConfig {
    ConsumerConfig { sweep: HOUR, ..ConsumerConfig::default() }
}

/// The database that tests clone: migrated, and sealed, because nobody may be connected to one that is cloned.
async fn template() -> Database {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let made = TEMPLATE.get_or_init(async || {
        let template = Database::empty().await;
        let broker = template.broker().await;
        broker.migrate().await.unwrap();
        broker.close().await;
        seal(&template.sibling("postgres").client().await, template.name()).await;
        template.url
    });
    Database { url: made.await.clone() }
}

/// What every database of the tests is set to where `DOORBELL_TEST_HOSTILE` is set: nothing of ours may depend on it.
const HOSTILE: [&str; 6] = [
    "timezone = 'Europe/Berlin'",
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'sql_standard'",
    "default_transaction_isolation = 'serializable'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
];

fn is_hostile() -> bool {
    std::env::var_os("DOORBELL_TEST_HOSTILE").is_some()
}

async fn be_hostile(admin: &Client, database: &str) {
    if is_hostile() {
        for setting in HOSTILE {
            admin.batch_execute(&format!("alter database {database} set {setting}")).await.unwrap();
        }
    }
}

async fn seal(admin: &Client, database: &str) {
    let sql = format!("alter database {database} with is_template true allow_connections false");
    admin.batch_execute(&sql).await.unwrap();
    let others = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1";
    while admin.query_one(others, &[&database]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
}

/// A database of its own.
pub struct Database {
    pub url: String,
}

impl Database {
    /// With the schema.
    pub async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let template = template().await;
        let db = template.sibling(&format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let sql = format!("create database {} template {}", db.name(), template.name());
        let admin = template.sibling("postgres").client().await;
        admin.batch_execute(&sql).await.unwrap();
        be_hostile(&admin, db.name()).await;
        db
    }

    /// With the schema, and where transactions of handlers are not undone because of each other: in a stricter isolation
    /// that costs attempts, and batches that were held go the other way.
    pub async fn read_committed() -> Self {
        let db = Self::new().await;
        let isolation = format!("alter database {} set default_transaction_isolation = 'read committed'", db.name());
        db.sibling("postgres").client().await.batch_execute(&isolation).await.unwrap();
        db
    }

    /// Without it.
    pub async fn empty() -> Self {
        let db = Self { url: doorbell_server::scratch().await.unwrap() };
        be_hostile(&db.sibling("postgres").client().await, db.name()).await;
        db
    }

    /// Another one of the same server.
    fn sibling(&self, name: &str) -> Self {
        Self { url: format!("{}dbname={name}", self.url.strip_suffix(&format!("dbname={}", self.name())).unwrap()) }
    }

    /// A name that no other database of this server has.
    pub fn name(&self) -> &str {
        self.url.rsplit_once("dbname=").unwrap().1
    }

    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }

    pub async fn broker(&self) -> Broker {
        Broker::connect(&self.url).await.unwrap()
    }

    pub async fn broker_with(&self, config: BrokerConfig) -> Broker {
        Broker::with_config(Settings::parse(&self.url).unwrap(), config).await.unwrap()
    }
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    if is_hostile() {
        // Who asks for more has to repeat what fails for it; the sessions of tests do not.
        client.batch_execute("set default_transaction_isolation = 'read committed'").await.unwrap();
    }
    client
}

/// Stops the clock of this test's database so many seconds after noon, 2026-03-01.
pub async fn stop_the_clock(client: &Client, second: u32) {
    let clock = format!(
        "create or replace function integration.clock() returns timestamptz language sql volatile parallel safe \
         return timestamptz '2026-03-01 12:00:00Z' + interval '{second} s'"
    );
    client.batch_execute(&clock).await.unwrap();
}

/// Waits for an event that must come; says which one did not.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, event).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen: {what}"),
    }
}

/// Asks the database until a boolean query is true. The only place that looks again and again: for states that nothing
/// announces.
pub async fn until(client: &Client, what: &str, query: &str) {
    soon(what, async {
        while !client.query_one(query, &[]).await.unwrap_or_else(|e| panic!("{query}: {e}")).get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The same for what this process can tell.
pub async fn until_so(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub async fn count(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap_or_else(|e| panic!("{query}: {e}")).get(0)
}

/// A handler's side of a channel: what it handled, in order.
pub fn seen<T>() -> (tokio::sync::mpsc::UnboundedSender<T>, Seen<T>) {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    (tell, Seen(told))
}

pub struct Seen<T>(tokio::sync::mpsc::UnboundedReceiver<T>);

impl<T> Seen<T> {
    pub async fn next(&mut self) -> T {
        soon("a message is handled", self.0.recv()).await.expect("the consumer is still there")
    }

    /// The next one, however long that takes; `None`: nobody is left to tell.
    pub async fn next_or_end(&mut self) -> Option<T> {
        self.0.recv().await
    }

    pub async fn take(&mut self, count: usize) -> Vec<T> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            all.push(self.next().await);
        }
        all
    }

    /// What has been seen and not been taken.
    pub fn rest(&mut self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.0.try_recv().ok())
    }
}

/// A consumer that completes everything, and tells what it handled. It sweeps once an hour.
pub async fn echo(broker: &Broker, target: &str) -> (Consumer, Seen<Delivery>) {
    let (tell, told) = seen();
    let consumer = broker.consumer(target).config(bells_only()).fallback(move |delivery| {
        let _ = tell.send(delivery);
        async { Ok(Outcome::Done) }
    });
    (consumer.start().await.unwrap(), told)
}

/// Publishes to the consumer of [`echo`] until a bell wakes it: every consumer looks when it starts and again when its
/// process listens, and from here on those looks are over. Returns how many messages that took.
pub async fn until_a_bell(producer: &Producer, target: &str, told: &mut Seen<Delivery>) -> usize {
    for n in 1.. {
        producer.publish(&message(target, -1)).await.unwrap();
        if told.next().await.found == Found::Bell {
            return n;
        }
    }
    unreachable!("every number was tried")
}

pub fn message(target: &str, n: i64) -> Message {
    Message::new(target, "n", &n).unwrap()
}

/// What an application without our library does.
pub async fn plain_insert(client: &Client, target: &str, data: &str) -> MessageId {
    let sql = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        values ('psql', $1, 'n', $2::text::jsonb) returning id";
    client.query_one(sql, &[&target, &data]).await.unwrap().get(0)
}

/// A message as the table has it.
#[derive(Debug)]
pub struct Row {
    pub status: String,
    pub attempt: i32,
    pub retry_count: i32,
    pub crash_count: i32,
    pub redrive_count: i32,
    pub error: Option<String>,
    pub owner: Option<String>,
    /// Seconds from the last change until it becomes pending.
    pub scheduled_in: Option<f64>,
}

impl Row {
    pub fn reason(&self) -> &str {
        self.error.as_deref().unwrap_or_else(|| panic!("there is no reason: {self:?}"))
    }
}

pub async fn row(client: &Client, id: MessageId) -> Row {
    let sql = "select status, attempt, retry_count, crash_count, redrive_count, error_message, owner, \
        extract(epoch from available_at - updated_at)::float8 from integration.data_staging where id = $1";
    let row = client.query_one(sql, &[&id]).await.unwrap();
    Row {
        status: row.get(0),
        attempt: row.get(1),
        retry_count: row.get(2),
        crash_count: row.get(3),
        redrive_count: row.get(4),
        error: row.get(5),
        owner: row.get(6),
        scheduled_in: row.get(7),
    }
}

/// Waits until a message has the status.
pub async fn until_status(client: &Client, id: MessageId, status: &str) -> Row {
    let query = format!("select status = '{status}' from integration.data_staging where id = {id}");
    until(client, &format!("message {id} is {status}"), &query).await;
    row(client, id).await
}

/// Waits until so many messages have the status.
pub async fn until_count(client: &Client, status: &str, count: usize) {
    let query = format!("select count(*) = {count} from integration.data_staging where status = '{status}'");
    until(client, &format!("{count} messages are {status}"), &query).await;
}

/// Publishes probes for billing until one was completed without having been leased: the consumer's process is old enough,
/// and its handlers are short. Wants an audit log that tells of claims, and leaves nothing in it.
pub async fn until_it_holds(client: &Client) {
    let held = "select exists (select from integration.data_staging d where d.record_type = 'probe' and d.status = 'completed' \
            and not exists (select from integration.audit_log a where a.staging_id = d.id and a.action = 'claimed')) \
        or integration.publish('test', 'billing', 'probe', '0') is null";
    until(client, "the consumer holds messages", held).await;
    let done = "select not exists (select from integration.data_staging where status <> 'completed')";
    until(client, "all probes are done", done).await;
    client.batch_execute("delete from integration.data_staging; truncate integration.audit_log").await.unwrap();
}

/// The backends that listen for processes with consumers of this database: they hold the processes' session locks.
pub const LISTENERS: &str = "select distinct l.pid from pg_locks l join pg_database d on d.oid = l.database \
    where l.locktype = 'advisory' and l.classid = integration.lock_class() and l.objid <> 0 and d.datname = current_database()";

pub async fn listeners(client: &Client) -> Vec<i32> {
    client.query(LISTENERS, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// A session of its own that listens to the bells of targets, parked for them: publishers ring.
pub struct Ear {
    client: Client,
    heard: mpsc::UnboundedReceiver<String>,
}

impl Ear {
    pub async fn on(db: &Database, targets: &[&str]) -> Self {
        let (client, mut connection) = tokio_postgres::connect(&db.url, NoTls).await.unwrap();
        let (tell, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = futures::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(bell) = message {
                    let _ = tell.send(bell.channel().to_owned());
                }
            }
        });
        client.batch_execute("listen heard_all").await.unwrap();
        for target in targets {
            let sql = "select format('listen %I; listen %I', integration.channel($1), integration.due_channel($1))";
            let listen: String = client.query_one(sql, &[target]).await.unwrap().get(0);
            client.batch_execute(&listen).await.unwrap();
            client.execute("select integration.park($1)", &[target]).await.unwrap();
        }
        Self { client, heard }
    }

    /// The channels that rang for what was committed until now: notifications come in the order of the commits, so our
    /// own is the last.
    pub async fn heard(&mut self) -> Vec<String> {
        self.client.batch_execute("notify heard_all").await.unwrap();
        let mut all = Vec::new();
        loop {
            match soon("our own notification comes back", self.heard.recv()).await.unwrap() {
                channel if channel == "heard_all" => return all,
                channel => all.push(channel),
            }
        }
    }
}

/// The channel of a target's bell.
pub async fn channel(client: &Client, target: &str) -> String {
    client.query_one("select integration.channel($1)", &[&target]).await.unwrap().get(0)
}

/// A text file of the repository.
pub fn repository(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What the page about deploying grants to a publisher, a consumer or an operator, for a role of another name.
pub fn grants(to: &str, role: &str) -> String {
    let page = repository("docs/deploy.md");
    let of = format!("doorbell_{to}");
    let lines = page.lines().filter(|line| line.contains(&of) && !line.starts_with("create role"));
    let granted: Vec<String> = lines.map(|line| line.replace(&of, role)).collect();
    assert!(granted.iter().any(|line| line.contains("integration.grant_to")), "no grants to {of} in docs/deploy.md");
    granted.join("\n")
}

/// Reads the start-up packet, which begins with its length; a request for TLS before it is refused.
pub async fn skip_startup(stream: &mut TcpStream) {
    loop {
        let length = stream.read_u32().await.unwrap();
        let mut packet = vec![0; length as usize - 4];
        stream.read_exact(&mut packet).await.unwrap();
        if packet != 80_877_103_u32.to_be_bytes() {
            return;
        }
        stream.write_all(b"N").await.unwrap();
    }
}
