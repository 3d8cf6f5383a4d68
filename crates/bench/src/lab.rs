//! Where it is measured: one database with our schema, and how messages get into it without anybody being told.

use std::time::Duration;

use doorbell::{Broker, BrokerConfig, Message, Settings};
use rand::{RngExt, distr::Alphanumeric};
use serde_json::{json, value::RawValue};
use tokio_postgres::{Client, NoTls, Row, types::ToSql};

/// What goes wrong in a benchmark ends it, whatever it was.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What differs from the defaults of a private server that is measured, so that checkpoints do not fall into some samples and
/// not into others.
pub const SERVER_SETTINGS: [(&str, &str); 4] =
    [("shared_buffers", "512MB"), ("max_wal_size", "8GB"), ("min_wal_size", "1GB"), ("checkpoint_timeout", "30min")];

/// A server that has run for a while writes over segments of its log that it no longer needs. A fresh one makes each as it
/// comes to it, and everybody who commits waits for that, a tenth of a second and more: so they are made before.
const MAKE_SEGMENTS: &str = "do $$ begin \
    for i in 1 .. 64 loop perform pg_logical_emit_message(true, 'doorbell_bench', ''), pg_switch_wal(); end loop; end $$";

/// Nobody's application: in a database that was named, settings of targets are somebody's.
pub const SOURCE: &str = "doorbell_bench";
pub const TARGET: &str = "doorbell_bench";
pub const TYPE: &str = "order.placed";

/// Bytes of a payload beside its padding.
const FRAME: usize = 20;

pub const AUDIT_LEVELS: [&str; 3] = ["all", "outcomes", "off"];
/// The argument of the trigger that writes the log.
const AUDIT_LEVEL: &str = "select coalesce(max(encode(tgargs, 'escape')), 'outcomes') from pg_trigger \
    where tgrelid = 'integration.data_staging'::regclass and tgname = 'data_staging_changed'";

/// Empty: neither messages nor history. Keys of the window stay, the benchmarks use none.
const CLEAR: &str = "truncate integration.data_staging, integration.data_staging_archive, integration.audit_log";

const FILL: &str = "insert into integration.data_staging (source_app, target_app, record_type, data, status, available_at, \
        ordering_key) \
    select 'doorbell_bench', $1::text, 'order.placed', jsonb_build_object('n', n, 'pad', $2::text), $3::text, \
           case when $3 = 'scheduled' then integration.clock() + interval '1 day' end, \
           case when $5::bigint > 0 then 'key ' || n % $5 end \
      from generate_series(1, $4::bigint) n";

/// What backends of ours did is in the statistics when they have ended; the statistics of those that stay are late.
const OTHERS: &str = "select count(*)::float8 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() \
    and backend_type = 'client backend' and application_name like 'doorbell%'";

const EVERY: Duration = Duration::from_millis(5);

/// A session of the experimenter in one database, in which no trigger fires. Cheap statements of any kind.
#[derive(Debug)]
pub struct Lab {
    pub url: String,
    client: Client,
    pad: String,
}

impl Lab {
    pub async fn open(url: &str) -> Result<Self> {
        let client = raw(url).await?;
        Ok(Self { url: url.to_owned(), client, pad: padding(64 << 10) })
    }

    /// Makes a fresh server like one that has run for a while.
    pub async fn run_in(&self) -> Result<()> {
        self.execute(MAKE_SEGMENTS).await?;
        self.execute("checkpoint").await
    }

    pub async fn execute(&self, sql: &str) -> Result<()> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// The one number (double precision) that a query asks for.
    pub async fn number(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<f64> {
        Ok(self.client.query_one(sql, params).await?.try_get(0)?)
    }

    /// The one row of a query.
    pub async fn row(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        Ok(self.client.query_one(sql, params).await?)
    }

    pub async fn text(&self, sql: &str) -> Result<String> {
        Ok(self.client.query_one(sql, &[]).await?.try_get(0)?)
    }

    /// Puts the audit level back and leaves no settings of ours.
    pub async fn restore(&self, audit_level: &str) -> Result<()> {
        self.execute(&format!("select integration.set_audit_level('{audit_level}')")).await?;
        self.execute(&format!("delete from integration.targets where target_app = '{TARGET}'")).await?;
        self.clear().await
    }

    /// The audit level as it is now.
    pub async fn audit_level(&self) -> Result<&'static str> {
        let level = self.text(AUDIT_LEVEL).await?;
        Ok(AUDIT_LEVELS.into_iter().find(|known| level.starts_with(known)).unwrap_or("outcomes"))
    }

    pub async fn clear(&self) -> Result<()> {
        self.execute(CLEAR).await
    }

    /// More messages for a target: payloads of about so many bytes of JSON that do not compress.
    pub async fn add(&self, target: &str, status: &str, messages: u64, bytes: usize) -> Result<()> {
        self.add_keyed(target, status, messages, bytes, 0).await
    }

    /// The same with so many ordering keys, which take turns; 0: none.
    async fn add_keyed(&self, target: &str, status: &str, messages: u64, bytes: usize, keys: u64) -> Result<()> {
        let pad = &self.pad[..bytes.saturating_sub(FRAME).min(self.pad.len())];
        self.client.execute(FILL, &[&target, &pad, &status, &(messages as i64), &(keys as i64)]).await?;
        Ok(())
    }

    /// Nothing but so many pending messages; everything written, and the planner knows.
    pub async fn fill(&self, messages: u64, bytes: usize) -> Result<()> {
        self.clear().await?;
        self.add(TARGET, "pending", messages, bytes).await?;
        self.settle_down().await
    }

    /// The same with so many ordering keys, which take turns; 0: none.
    pub async fn fill_keyed(&self, messages: u64, bytes: usize, keys: u64) -> Result<()> {
        self.clear().await?;
        self.add_keyed(TARGET, "pending", messages, bytes, keys).await?;
        self.settle_down().await
    }

    /// Vacuum, statistics, checkpoint: every measurement begins alike.
    pub async fn settle_down(&self) -> Result<()> {
        self.execute("vacuum analyze integration.data_staging").await?;
        self.execute("checkpoint").await
    }

    /// A payload as [`fill`](Self::fill) makes them.
    pub fn payload(&self, bytes: usize) -> String {
        let pad = &self.pad[..bytes.saturating_sub(FRAME).min(self.pad.len())];
        json!({ "n": 1, "pad": pad }).to_string()
    }

    /// A message with such a payload.
    pub fn message(&self, bytes: usize) -> Result<Message> {
        Ok(Message::from_raw(TARGET, TYPE, RawValue::from_string(self.payload(bytes))?))
    }

    /// A process's handle of its own.
    pub async fn broker(&self, connections_max: usize) -> Result<Broker> {
        let config = BrokerConfig { connections_max, ..BrokerConfig::default() };
        Ok(Broker::with_config(Settings::parse(&self.url)?, config).await?)
    }

    /// Waits until a condition in SQL holds; returns how often it was looked at.
    pub async fn until(&self, condition: &str) -> Result<usize> {
        let sql = format!("select ({condition})::integer::float8");
        let mut looks = 1;
        while self.number(&sql, &[]).await? == 0.0 {
            looks += 1;
            tokio::time::sleep(EVERY).await;
        }
        Ok(looks)
    }

    /// Waits until nothing is left that could be handled now; returns how often it was looked at. Each look asks a small
    /// partial index.
    pub async fn drained(&self) -> Result<usize> {
        let none =
            |status: &str| format!("not exists (select from integration.data_staging where status = '{status}')");
        Ok(self.until(&none("pending")).await? + self.until(&none("processing")).await?)
    }

    /// Brings what this session did into the statistics.
    pub async fn flushed(&self) -> Result<()> {
        self.execute("select pg_stat_force_next_flush()").await?;
        self.execute("select pg_stat_clear_snapshot()").await
    }

    /// Waits until the processes of ours have closed their connections, so that their statistics are complete.
    pub async fn alone(&self) -> Result<()> {
        while self.number(OTHERS, &[]).await? > 0.0 {
            tokio::time::sleep(EVERY).await;
        }
        Ok(())
    }
}

/// A session for floors: no trigger of ours fires in it, which takes a superuser.
pub async fn raw(url: &str) -> Result<Client> {
    let client = connect(url).await?;
    client.batch_execute("set session_replication_role = replica; set application_name = 'floor'").await?;
    Ok(client)
}

/// A plain session.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Ends with its client.
    tokio::spawn(connection);
    // As ours are, whatever the database begins transactions with.
    client.batch_execute("set default_transaction_isolation = 'read committed'").await?;
    Ok(client)
}

/// Letters and digits by chance: text that neither JSONB nor TOAST makes smaller.
fn padding(bytes: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(bytes).map(char::from).collect()
}
