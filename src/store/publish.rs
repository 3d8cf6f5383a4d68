//! Publishing: one, many, and inside the caller's transaction.

use std::pin::pin;

use bytes::Bytes;
use tokio_postgres::{
    CopyInSink, Transaction,
    binary_copy::BinaryCopyInWriter,
    types::{ToSql, Type},
};

use super::{
    Store,
    json::JsonbText,
    together::{self, Statements, Together},
};
use crate::{
    error::{Error, ErrorKind, Result},
    message::{Message, MessageId},
};

/// From how many messages on COPY beats one INSERT from arrays. COPY knows neither delays nor dedup and coalesce keys, nor what expires.
const COPY_FROM: usize = 64;

// What integration.publish does with nearly all messages, which has neither delay nor anything of what follows in it. Calling it
// costs the server a ninth more.
const INSERT: &str = "insert into integration.data_staging \
    (source_app, target_app, record_type, data, priority, headers, ordering_key, max_retries) \
    values ($1, $2, $3, $4, $5, $6, $7, $8) returning id";

const PUBLISH: &str = "select integration.publish($1, $2, $3, $4, $5, $6::bigint * interval '1 ms', $7, $8, $9, $10, \
    $11::bigint * interval '1 ms', $12, $13::bigint * interval '1 ms')";
const PUBLISH_TYPES: [Type; 13] = [
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::JSONB,
    Type::INT4,
    Type::INT8,
    Type::JSONB,
    Type::TEXT,
    Type::TEXT,
    Type::INT4,
    Type::INT8,
    Type::TEXT,
    Type::INT8,
];

const PUBLISH_MANY: &str =
    "select id from integration.publish_many($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) order by ordinal";
const PUBLISH_MANY_TYPES: [Type; 13] = [
    Type::TEXT,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT4_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT4_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
];

// Null: not allowed, ids or all of COPY, and so not reserved.
const RESERVE_IDS: &str = "select array_agg(nextval('integration.data_staging_id_seq')) from generate_series(1, $1::bigint) \
    where has_column_privilege('integration.data_staging'::regclass, 'id', 'insert') \
        and not row_security_active('integration.data_staging'::regclass)";

// The columns of a publish without delay and dedup key; the rest are the table's defaults.
const COPY: &str = "copy integration.data_staging \
    (id, source_app, target_app, record_type, data, priority, headers, ordering_key, max_retries) from stdin (format binary)";
const COPY_TYPES: [Type; 9] =
    [Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT, Type::JSONB, Type::INT4, Type::JSONB, Type::TEXT, Type::INT4];

impl Store {
    /// Publishes a message; with others that are published at the same moment.
    pub(crate) async fn publish(&self, source: &str, message: &Message) -> Result<MessageId> {
        together::publish(self, source, message).await
    }

    /// All or nothing: one statement.
    pub(crate) async fn publish_many(&self, source: &str, messages: &[Message]) -> Result<Vec<MessageId>> {
        if self.copies(messages) {
            let client = self.busy().await.map_err(|error| error.context("publish"))?;
            let copied = self.conclude(client, "publish", async |client| {
                let (reserve, into) = (self.sql(RESERVE_IDS), self.sql(COPY));
                let (reserve, into) =
                    futures::try_join!(client.prepare_cached(&reserve), client.prepare_cached(&into))?;
                let ids = client.query_one(&reserve, &[&(messages.len() as i64)]).await?;
                let ids = ids.try_get::<_, Option<Vec<MessageId>>>(0)?;
                if let Some(ids) = &ids {
                    copy(client.copy_in(&into).await?, source, ids, messages).await?;
                }
                Ok(ids)
            });
            if let Some(copied) = copied.await? {
                return Ok(copied);
            }
        }
        let columns = Columns::new(source, messages);
        ids(self.query("publish", PUBLISH_MANY, &columns.params()).await?)
    }

    /// Publishes inside the caller's transaction, in one round trip.
    pub(crate) async fn publish_in(&self, tx: &Transaction<'_>, source: &str, message: &Message) -> Result<MessageId> {
        let row = One::new(source, message);
        let answer = tx.query_typed(&self.sql(PUBLISH), &typed(&row.params(), &PUBLISH_TYPES)).await?;
        let row = answer.first().ok_or_else(|| Error::new(ErrorKind::Schema, "publish did not answer with one row"))?;
        Ok(row.try_get(0)?)
    }

    pub(crate) async fn publish_many_in(
        &self,
        tx: &Transaction<'_>,
        source: &str,
        messages: &[Message],
    ) -> Result<Vec<MessageId>> {
        if self.copies(messages) {
            let count = messages.len() as i64;
            let reserved = tx.query_typed(&self.sql(RESERVE_IDS), &[(&count, Type::INT8)]).await?;
            let reserved =
                reserved.first().map(|row| row.try_get::<_, Option<Vec<MessageId>>>(0)).transpose()?.flatten();
            if let Some(reserved) = reserved {
                copy(tx.copy_in(&*self.sql(COPY)).await?, source, &reserved, messages).await?;
                return Ok(reserved);
            }
        }
        let columns = Columns::new(source, messages);
        ids(tx.query_typed(&self.sql(PUBLISH_MANY), &typed(&columns.params(), &PUBLISH_MANY_TYPES)).await?)
    }

    /// Whether these go by COPY, which the driver prepares, where the role may name ids: who may publish for some
    /// applications only may not.
    fn copies(&self, messages: &[Message]) -> bool {
        self.pool.prepares() && messages.len() >= COPY_FROM && messages.iter().all(is_plain)
    }
}

impl Statements for Store {
    fn together(&self) -> &Together {
        &self.together
    }

    async fn one(&self, source: &str, message: &Message) -> Result<MessageId> {
        let row = One::new(source, message);
        let answer = match is_plain(message) {
            true => self.query_one("publish", INSERT, &row.columns()).await?,
            false => self.query_one("publish", PUBLISH, &row.params()).await?,
        };
        Ok(answer.try_get(0)?)
    }

    async fn many(&self, source: &str, messages: &[Message]) -> Result<Vec<MessageId>> {
        self.publish_many(source, messages).await
    }
}

/// Whether nothing is to be done but to write the row.
fn is_plain(message: &Message) -> bool {
    message.dedup_key.is_none()
        && message.delay.is_none()
        && message.expires_after.is_none()
        && message.coalesce_key.is_none()
}

async fn copy(
    sink: CopyInSink<Bytes>,
    source: &str,
    ids: &[MessageId],
    messages: &[Message],
) -> Result<(), tokio_postgres::Error> {
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &COPY_TYPES));
    for (id, message) in ids.iter().zip(messages) {
        let row = One::new(source, message);
        let columns = row.columns();
        let mut values: [&(dyn ToSql + Sync); 9] = [id; 9];
        values[1..].copy_from_slice(&columns);
        writer.as_mut().write(&values).await?;
    }
    writer.finish().await?;
    Ok(())
}

fn ids(rows: Vec<tokio_postgres::Row>) -> Result<Vec<MessageId>> {
    rows.iter().map(|row| row.try_get(0).map_err(Error::from)).collect()
}

fn typed<'a>(params: &[&'a (dyn ToSql + Sync)], types: &[Type]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    params.iter().copied().zip(types.iter().cloned()).collect()
}

/// The parameters of one publish.
struct One<'a> {
    source: &'a str,
    message: &'a Message,
    payload: JsonbText<&'a str>,
    headers: Option<JsonbText<String>>,
    delay_ms: Option<i64>,
    max_retries: Option<i32>,
    expires_ms: Option<i64>,
    max_wait_ms: Option<i64>,
}

impl<'a> One<'a> {
    fn new(source: &'a str, message: &'a Message) -> Self {
        Self {
            source,
            message,
            payload: JsonbText(message.payload.get()),
            headers: message.headers_json().map(JsonbText),
            delay_ms: message.delay_ms(),
            max_retries: max_retries(message),
            expires_ms: message.expires_ms(),
            max_wait_ms: message.max_wait_ms(),
        }
    }

    /// Of a plain one.
    fn columns(&self) -> [&(dyn ToSql + Sync); 8] {
        [
            &self.source,
            &self.message.target,
            &self.message.record_type,
            &self.payload,
            &self.message.priority,
            &self.headers,
            &self.message.ordering_key,
            &self.max_retries,
        ]
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 13] {
        [
            &self.source,
            &self.message.target,
            &self.message.record_type,
            &self.payload,
            &self.message.priority,
            &self.delay_ms,
            &self.headers,
            &self.message.ordering_key,
            &self.message.dedup_key,
            &self.max_retries,
            &self.expires_ms,
            &self.message.coalesce_key,
            &self.max_wait_ms,
        ]
    }
}

/// The parameters of many, column by column. A column that nobody uses is null as a whole.
struct Columns<'a> {
    source: &'a str,
    targets: Vec<&'a str>,
    record_types: Vec<&'a str>,
    payloads: Vec<&'a str>,
    priorities: Vec<i32>,
    delays_ms: Option<Vec<Option<i64>>>,
    headers: Option<Vec<Option<String>>>,
    ordering_keys: Option<Vec<Option<&'a str>>>,
    dedup_keys: Option<Vec<Option<&'a str>>>,
    max_retries: Option<Vec<Option<i32>>>,
    expires_ms: Option<Vec<Option<i64>>>,
    coalesce_keys: Option<Vec<Option<&'a str>>>,
    max_waits_ms: Option<Vec<Option<i64>>>,
}

impl<'a> Columns<'a> {
    fn new(source: &'a str, messages: &'a [Message]) -> Self {
        Self {
            source,
            targets: messages.iter().map(|message| message.target.as_str()).collect(),
            record_types: messages.iter().map(|message| message.record_type.as_str()).collect(),
            payloads: messages.iter().map(|message| message.payload.get()).collect(),
            priorities: messages.iter().map(|message| message.priority).collect(),
            delays_ms: column(messages, Message::delay_ms),
            headers: column(messages, Message::headers_json),
            ordering_keys: column(messages, |message| message.ordering_key.as_deref()),
            dedup_keys: column(messages, |message| message.dedup_key.as_deref()),
            max_retries: column(messages, max_retries),
            expires_ms: column(messages, Message::expires_ms),
            coalesce_keys: column(messages, |message| message.coalesce_key.as_deref()),
            max_waits_ms: column(messages, Message::max_wait_ms),
        }
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 13] {
        [
            &self.source,
            &self.targets,
            &self.record_types,
            &self.payloads,
            &self.priorities,
            &self.delays_ms,
            &self.headers,
            &self.ordering_keys,
            &self.dedup_keys,
            &self.max_retries,
            &self.expires_ms,
            &self.coalesce_keys,
            &self.max_waits_ms,
        ]
    }
}

fn column<'a, T>(messages: &'a [Message], value: impl Fn(&'a Message) -> Option<T>) -> Option<Vec<Option<T>>> {
    let column: Vec<_> = messages.iter().map(value).collect();
    column.iter().any(Option::is_some).then_some(column)
}

fn max_retries(message: &Message) -> Option<i32> {
    message.max_retries.map(|retries| i32::try_from(retries).unwrap_or(i32::MAX))
}
