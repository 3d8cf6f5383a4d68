//! One message in full, why it is not running, and the state of the targets.

use std::time::SystemTime;

use super::{MessageRow, Store, TargetStats, json::JsonbString, list::message};
use crate::{error::Result, message::MessageId};

const SHOW: &str = "select m.*, m.error_message as reason, case when $2 then m.data end as payload \
      from (select d.*, false as archived from integration.data_staging d where d.id = $1 \
            union all select a.*, true from integration.data_staging_archive a where a.id = $1) m limit 1";
const EXPLAIN: &str = "select * from integration.explain($1)";
const TARGETS: &str = "select * from integration.target_states($1)";

/// A message in full.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoredMessage {
    /// What a list shows of it, too.
    pub row: MessageRow,
    /// When it was completed.
    pub processed_at: Option<SystemTime>,
    /// When its claim ends by itself, if it has a lease of its own.
    pub lease_until: Option<SystemTime>,
    /// Its own limit of retries, if it has one.
    pub max_retries: Option<i32>,
    /// Its headers, as a JSON object.
    pub headers: Option<String>,
    /// Its ordering key.
    pub ordering_key: Option<String>,
    /// Its dedup key.
    pub dedup_key: Option<String>,
    /// Whether it was moved to the archive.
    pub archived: bool,
    /// Its payload as JSON, if it was asked for.
    pub payload: Option<String>,
}

/// One reason why a message is not running, or would not be when the one before it is gone.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// For programs: `paused`, `no_consumer`, …; all are listed at `integration.explain`.
    pub code: String,
    /// For people.
    pub sentence: String,
    /// What to type; `None` when nothing needs to be done.
    pub fix: Option<String>,
    /// The facts behind the sentence, as a JSON object.
    pub details: String,
}

/// A target, what waits for it, who works on it, and what keeps its messages from being claimed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TargetState {
    /// Its name.
    pub target: String,
    /// Its messages by status; `None`: it has none.
    pub stats: Option<TargetStats>,
    /// Live processes that consume it.
    pub consumers: i64,
    /// Messages that they handle at the same time.
    pub workers: i64,
    /// Codes and sentences of the gates that are closed, as [`Explanation`] has them; empty: it can be claimed.
    pub closed_gates: Vec<(String, String)>,
}

impl Store {
    pub(crate) async fn show(&self, id: MessageId, with_payload: bool) -> Result<Option<StoredMessage>> {
        let rows = self.query("show the message", SHOW, &[&id, &with_payload]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let json = |name: &str| -> Result<Option<String>> {
            Ok(row.try_get::<_, Option<JsonbString>>(name)?.map(|json| json.0.into()))
        };
        Ok(Some(StoredMessage {
            row: message(row)?,
            processed_at: row.try_get("processed_at")?,
            lease_until: row.try_get("lease_until")?,
            max_retries: row.try_get("max_retries")?,
            headers: json("headers")?,
            ordering_key: row.try_get("ordering_key")?,
            dedup_key: row.try_get("dedup_key")?,
            archived: row.try_get("archived")?,
            payload: json("payload")?,
        }))
    }

    pub(crate) async fn explain(&self, id: MessageId) -> Result<Vec<Explanation>> {
        let rows = self.query("explain the message", EXPLAIN, &[&id]).await?;
        rows.iter()
            .map(|row| {
                Ok(Explanation {
                    code: row.try_get("code")?,
                    sentence: row.try_get("sentence")?,
                    fix: row.try_get("fix")?,
                    details: row.try_get::<_, JsonbString>("details")?.0.into(),
                })
            })
            .collect()
    }

    pub(crate) async fn targets(&self) -> Result<Vec<TargetState>> {
        let mut stats = self.stats().await?;
        let names: Vec<String> = stats.iter().map(|stats| stats.target.clone()).collect();
        let rows = self.query("list targets", TARGETS, &[&names]).await?;
        rows.iter()
            .map(|row| {
                let target: String = row.try_get(0)?;
                let (codes, sentences): (Vec<String>, Vec<String>) = (row.try_get(3)?, row.try_get(4)?);
                let found = stats.iter().position(|stats| stats.target == target);
                Ok(TargetState {
                    stats: found.map(|at| stats.swap_remove(at)),
                    target,
                    consumers: row.try_get(1)?,
                    workers: row.try_get(2)?,
                    closed_gates: codes.into_iter().zip(sentences).collect(),
                })
            })
            .collect()
    }
}
