//! Claiming, and what becomes pending next.

use std::{sync::Arc, time::Duration};

use tokio_postgres::Row;

use super::{Store, json::JsonbString};
use crate::{
    error::{Error, Result},
    message::{Delivery, Found, Headers},
};

// The age is the server's reckoning: nothing here compares a stored time with a clock of its own.
const CLAIM: &str = "select c.*, (extract(epoch from integration.clock() - c.created_at) * 1000000)::bigint as age_us \
    from integration.claim($1, $2, $3, $4, null, $5) c";
const CLAIM_SUSPECT: &str = "select c.*, (extract(epoch from integration.clock() - c.created_at) * 1000000)::bigint as age_us \
    from integration.claim_suspect($1, $2, $3) c";
const HAS_SUSPECTS: &str = "select integration.has_suspects($1, $2)";
const PROMOTE: &str = "select integration.promote($1, $2)";
const CHANNELS: &str = "select integration.channel($1), integration.due_channel($1)";
const REPORT_RUNS: &str = "select integration.report_runs($1, $2, $3, $4, $5)";
const OLDEST_XID: &str = "select integration.oldest_xid()";
const NEXT_DUE: &str = "select min(due_in_ms) from integration.next_due($1)";

/// How many due messages one promote takes; it is repeated until fewer are found.
const PROMOTE_LIMIT: i32 = 1000;

/// Whose messages to claim, for whom.
#[derive(Debug)]
pub(crate) struct ClaimRequest<'a> {
    pub(crate) target: &'a str,
    pub(crate) owner: &'a Arc<str>,
    /// `None`: any record type.
    pub(crate) record_types: Option<&'a [String]>,
    /// Bounds the memory of one batch.
    pub(crate) bytes_max: i64,
}

impl ClaimRequest<'_> {
    /// Whether the bound on bytes, and not the lack of messages, may have ended a claim. The server counts stored bytes,
    /// which compression can only make fewer than the JSONB: at most four bytes per byte of text, and a header.
    pub(crate) fn may_be_cut(&self, deliveries: &[Delivery]) -> bool {
        let bytes: usize = deliveries.iter().map(|delivery| 4 * delivery.payload.len() + 32).sum();
        bytes as i64 >= self.bytes_max
    }
}

impl Store {
    /// Claims up to `limit` messages, in claiming order.
    pub(crate) async fn claim(&self, request: &ClaimRequest<'_>, limit: usize, found: Found) -> Result<Vec<Delivery>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&request.target, &&**request.owner, &limit, &request.record_types, &request.bytes_max];
        let rows = self.query("claim messages", CLAIM, &params).await?;
        rows.iter().map(|row| delivery(row, request, found)).collect()
    }

    /// The oldest transaction that may still be running; a claim made after this sees everything older.
    pub(crate) async fn oldest_xid(&self) -> Result<i64> {
        Ok(self.query_one("read the oldest transaction", OLDEST_XID, &[]).await?.try_get(0)?)
    }

    /// Claims one message that was in flight when a consumer died.
    pub(crate) async fn claim_suspect(&self, request: &ClaimRequest<'_>) -> Result<Option<Delivery>> {
        let rows = self
            .query("claim a suspect", CLAIM_SUSPECT, &[&request.target, &&**request.owner, &request.record_types])
            .await?;
        rows.first().map(|row| delivery(row, request, Found::Sweep)).transpose()
    }

    pub(crate) async fn has_suspects(&self, request: &ClaimRequest<'_>) -> Result<bool> {
        let row = self.query_one("look for suspects", HAS_SUSPECTS, &[&request.target, &request.record_types]).await?;
        Ok(row.try_get(0)?)
    }

    /// Tells the target's breaker how runs went; `down`: the handler said that its dependency is down.
    pub(crate) async fn report_runs(&self, target: &str, ok: i64, failed: i64, down: Option<&str>) -> Result<()> {
        self.query("report to the breaker", REPORT_RUNS, &[&target, &ok, &failed, &down.is_some(), &down]).await?;
        Ok(())
    }

    /// The channels on which a target's bell rings and on which its next due time is announced.
    pub(crate) async fn channels(&self, target: &str) -> Result<(String, String)> {
        let row = self.query_one("ask for the target's channels", CHANNELS, &[&target]).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    /// Makes every due message of the targets pending; returns how many.
    pub(crate) async fn promote(&self, targets: &[String]) -> Result<usize> {
        let mut promoted = 0;
        loop {
            let row = self.query_one("promote scheduled messages", PROMOTE, &[&targets, &PROMOTE_LIMIT]).await?;
            let count: i32 = row.try_get(0)?;
            promoted += count as usize;
            if count < PROMOTE_LIMIT {
                return Ok(promoted);
            }
        }
    }

    /// How long until the next scheduled message of any of the targets is due.
    pub(crate) async fn next_due(&self, targets: &[String]) -> Result<Option<Duration>> {
        let row = self.query_one("look for scheduled messages", NEXT_DUE, &[&targets]).await?;
        let due_in_ms: Option<i64> = row.try_get(0)?;
        Ok(due_in_ms.map(|ms| Duration::from_millis(ms.max(0) as u64)))
    }
}

fn delivery(row: &Row, request: &ClaimRequest<'_>, found: Found) -> Result<Delivery> {
    let headers: Option<JsonbString> = row.try_get("headers")?;
    let payload: JsonbString = row.try_get("data")?;
    Ok(Delivery {
        id: row.try_get("id")?,
        attempt: row.try_get("attempt")?,
        source: row.try_get("source_app")?,
        target: request.target.to_owned(),
        record_type: row.try_get("record_type")?,
        priority: row.try_get("priority")?,
        retry_count: row.try_get("retry_count")?,
        redrive_count: row.try_get("redrive_count")?,
        headers: headers.map(|json| headers_from(&json.0)).transpose()?.unwrap_or_default(),
        ordering_key: row.try_get("ordering_key")?,
        created_at: row.try_get("created_at")?,
        age: Duration::from_micros(row.try_get::<_, i64>("age_us")?.max(0) as u64),
        received: tokio::time::Instant::now(),
        found,
        canary: row.try_get("canary")?,
        owner: request.owner.clone(),
        payload: payload.0,
    })
}

/// Plain SQL may have stored any values: what is not a string is handed on as JSON text.
fn headers_from(json: &str) -> Result<Headers> {
    let values: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(json)
        .map_err(|error| Error::invalid("the headers are not a JSON object").with_source(error))?;
    Ok(values
        .into_iter()
        .map(|(name, value)| {
            let text = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
            (name, text)
        })
        .collect())
}
