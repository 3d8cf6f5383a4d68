//! The floors: the same work by raw prepared statements on the same table and columns, in sessions without triggers. Every
//! column is decoded as our client does it, and every commit waits for the disk as the server's settings say.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use futures::future::try_join_all;
use serde_json::value::RawValue;
use tokio_postgres::{
    Client, Row, Statement,
    binary_copy::BinaryCopyInWriter,
    types::{FromSql, Json, Type},
};

use crate::{Result, SOURCE, TARGET, TYPE, connect, raw};

const INSERT: &str = "insert into integration.data_staging \
    (source_app, target_app, record_type, data, priority, headers, ordering_key, max_retries) \
    values ($1, $2, $3, $4, $5, $6, $7, $8) returning id";

const COPY: &str = "copy integration.data_staging \
    (id, source_app, target_app, record_type, data, priority, headers, ordering_key, max_retries) from stdin (format binary)";
const COPY_TYPES: [Type; 9] =
    [Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT, Type::JSONB, Type::INT4, Type::JSONB, Type::TEXT, Type::INT4];

const PICKED: &str = "from integration.data_staging where target_app = $1 and status = 'pending' \
    order by priority desc, created_at, id limit $2 for no key update skip locked";
const COLUMNS: &str = "id, attempt, source_app, record_type, data, headers, priority, retry_count, redrive_count, ordering_key, created_at";

const COMPLETE: &str = "update integration.data_staging set status = 'completed', owner = null, \
    processed_at = clock_timestamp(), updated_at = clock_timestamp() \
    where id = any ($1) and owner = 'floor' and status = 'processing'";
const COMPLETE_LOCKED: &str = "update integration.data_staging set status = 'completed', attempt = attempt + 1, \
    processed_at = clock_timestamp(), updated_at = clock_timestamp() where id = any ($1)";

/// A statement that returns rows, which are published by itself.
pub fn published_by_hand(statement: &str) -> String {
    format!(
        "with u as ({statement}) insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key) \
         select '{SOURCE}', '{TARGET}', 'update', to_jsonb(u), 'plain:' || u.id from u"
    )
}

/// A message, and a notification that it is there.
pub fn asked_by_hand(target: &str, payload: &str, channel: &str) -> String {
    format!(
        "insert into integration.data_staging (source_app, target_app, record_type, data) \
         values ('{SOURCE}', '{target}', '{TYPE}', '{payload}'); notify {channel}"
    )
}

/// One connection that inserts.
pub struct Inserter {
    client: Client,
    insert: Statement,
    payload: Box<RawValue>,
    next_id: i64,
}

impl Inserter {
    pub async fn open(url: &str, payload: String) -> Result<Self> {
        Self::over(raw(url).await?, payload).await
    }

    /// The same in a session where triggers fire: not a floor, but what plain SQL does.
    pub async fn ringing(url: &str, payload: String) -> Result<Self> {
        Self::over(connect(url).await?, payload).await
    }

    async fn over(client: Client, payload: String) -> Result<Self> {
        let insert = client.prepare(INSERT).await?;
        let payload = RawValue::from_string(payload)?;
        let row = client.query_one("select nextval('integration.data_staging_id_seq')", &[]).await?;
        // Far from what the sequence gives, and from each other.
        let next_id: i64 = row.try_get(0)?;
        Ok(Self { client, insert, payload, next_id: next_id << 32 })
    }

    /// One row, one commit.
    pub async fn insert(&self, target: &str) -> Result<i64> {
        let none: (Option<Json<()>>, Option<&str>, Option<i32>) = (None, None, None);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 8] =
            [&SOURCE, &target, &TYPE, &Json(&self.payload), &0, &none.0, &none.1, &none.2];
        Ok(self.client.query_one(&self.insert, &params).await?.try_get(0)?)
    }

    /// Many rows by binary COPY, ids counted here.
    pub async fn copy(&mut self, rows: usize) -> Result<()> {
        let sink = self.client.copy_in::<_, Bytes>(COPY).await?;
        let mut writer = std::pin::pin!(BinaryCopyInWriter::new(sink, &COPY_TYPES));
        let none: (Option<Json<()>>, Option<&str>, Option<i32>) = (None, None, None);
        for n in 0..rows as i64 {
            let id = self.next_id + n;
            writer
                .as_mut()
                .write(&[&id, &SOURCE, &TARGET, &TYPE, &Json(&self.payload), &0, &none.0, &none.1, &none.2])
                .await?;
        }
        self.next_id += rows as i64;
        writer.finish().await?;
        Ok(())
    }
}

/// One connection that claims and completes. Cheap to clone.
#[derive(Clone)]
pub struct Claimer(Arc<Statements>);

struct Statements {
    client: Client,
    claim: Statement,
    complete: Statement,
    lock: Statement,
    complete_locked: Statement,
}

impl Claimer {
    pub async fn open(url: &str) -> Result<Self> {
        let client = raw(url).await?;
        // At their best: never the plan that was right while the table was empty.
        client.batch_execute("set enable_seqscan = off; set enable_bitmapscan = off; set jit = off").await?;
        let claim = format!(
            "with picked as materialized (select id {PICKED}) update integration.data_staging \
             set status = 'processing', attempt = attempt + 1, owner = 'floor', updated_at = clock_timestamp() \
             where id = any (array(select id from picked)) returning {COLUMNS}"
        );
        Ok(Self(Arc::new(Statements {
            claim: client.prepare(&claim).await?,
            complete: client.prepare(COMPLETE).await?,
            lock: client.prepare(&format!("select {COLUMNS} {PICKED}")).await?,
            complete_locked: client.prepare(COMPLETE_LOCKED).await?,
            client,
        })))
    }

    pub async fn execute(&self, sql: &str) -> Result<()> {
        Ok(self.0.client.batch_execute(sql).await?)
    }

    /// Up to a batch of messages of a target, processing from now on.
    pub async fn claim(&self, target: &str, batch: i64) -> Result<Vec<i64>> {
        decoded(&self.0.client.query(&self.0.claim, &[&target, &batch]).await?)
    }

    pub async fn complete(&self, ids: &[i64]) -> Result<()> {
        self.0.client.execute(&self.0.complete, &[&ids]).await?;
        Ok(())
    }

    /// Claims and completes, a transaction each, until nothing is pending.
    async fn drain(self, batch: i64) -> Result<()> {
        loop {
            let ids = self.claim(TARGET, batch).await?;
            if ids.is_empty() {
                return Ok(());
            }
            self.complete(&ids).await?;
        }
    }

    /// Locks and completes in one transaction a batch, in two round trips, until nothing is pending.
    async fn drain_locked(self, batch: i64) -> Result<()> {
        let Statements { client, lock, complete_locked, .. } = &*self.0;
        loop {
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&TARGET, &batch];
            let (begun, rows) = tokio::join!(client.batch_execute("begin"), client.query(lock, &params));
            begun?;
            let ids = decoded(&rows?)?;
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&ids];
            let (completed, ended) =
                tokio::join!(client.execute(complete_locked, &params), client.batch_execute("commit"));
            completed?;
            ended?;
            if ids.is_empty() {
                return Ok(());
            }
        }
    }
}

/// How a floor drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A claim and a completion, each committed.
    Leased,
    /// Row locks held from the look to the completion, one commit.
    Locked,
}

/// Drains with so many claimers at once.
pub async fn drain(claimers: &[Claimer], way: Way, batch: i64) -> Result<Duration> {
    let began = Instant::now();
    let tasks = claimers.iter().cloned().map(|claimer| {
        tokio::spawn(async move {
            match way {
                Way::Leased => claimer.drain(batch).await,
                Way::Locked => claimer.drain_locked(batch).await,
            }
        })
    });
    for ended in try_join_all(tasks).await? {
        ended?;
    }
    Ok(began.elapsed())
}

/// Takes every column out of the rows, as a client must; returns the ids.
fn decoded(rows: &[Row]) -> Result<Vec<i64>> {
    rows.iter()
        .map(|row| {
            let message: (i64, i32, String, String, JsonText, Option<JsonText>) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
            let rest: (i32, i32, i32, Option<String>, SystemTime) =
                (row.try_get(6)?, row.try_get(7)?, row.try_get(8)?, row.try_get(9)?, row.try_get(10)?);
            black_box((&message, &rest));
            Ok(message.0)
        })
        .collect()
}

/// JSONB as text, unparsed.
struct JsonText(#[expect(dead_code, reason = "decoding is the work")] String);

impl<'a> FromSql<'a> for JsonText {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self> {
        match raw.split_first() {
            Some((1, text)) => Ok(Self(std::str::from_utf8(text)?.to_owned())),
            _ => Err("not the JSONB that is known".into()),
        }
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }
}
