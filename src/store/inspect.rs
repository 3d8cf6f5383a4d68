//! One message in full, and why it is not running.

use tokio_postgres::Row;

use super::{Store, json::JsonbString, list::message};
use crate::{
    error::Result,
    message::MessageId,
    rows::{Coalescing, Explanation, StoredMessage},
};

const SHOW: &str = "select m.*, m.error_message as reason, case when $2 then m.data end as payload, e.expires_at, \
          w.coalesce_key, w.replaced, w.put_off_until \
      from (select d.*, false as archived from integration.data_staging d where d.id = $1 \
            union all select a.*, true from integration.data_staging_archive a where a.id = $1) m \
      left join integration.expiring e on e.id = m.id and e.created_at = m.created_at and not m.archived \
      left join lateral integration.waits_under(m.id) w on not m.archived limit 1";
const PEEK: &str = "select d.*, d.error_message as reason, d.data as payload, false as archived, \
          (select e.expires_at from integration.expiring e where e.id = d.id and e.created_at = d.created_at), \
          w.coalesce_key, w.replaced, w.put_off_until \
      from integration.peek($1, $2, $3) with ordinality p join integration.data_staging d on d.id = p.id \
      left join lateral integration.waits_under(d.id) w on true order by p.ordinality";
const EXPLAIN: &str = "select * from integration.explain($1)";

impl Store {
    pub(crate) async fn show(&self, id: MessageId, with_payload: bool) -> Result<Option<StoredMessage>> {
        let rows = self.query("show the message", SHOW, &[&id, &with_payload]).await?;
        rows.first().map(stored).transpose()
    }

    /// What would be claimed next, and stays where it is.
    pub(crate) async fn peek(
        &self,
        target: &str,
        limit: u32,
        record_types: Option<&[String]>,
    ) -> Result<Vec<StoredMessage>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows = self.query("peek at messages", PEEK, &[&target, &limit, &record_types]).await?;
        rows.iter().map(stored).collect()
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
}

fn stored(row: &Row) -> Result<StoredMessage> {
    let json = |name: &str| -> Result<Option<String>> {
        Ok(row.try_get::<_, Option<JsonbString>>(name)?.map(|json| json.0.into()))
    };
    Ok(StoredMessage {
        row: message(row)?,
        processed_at: row.try_get("processed_at")?,
        lease_until: row.try_get("lease_until")?,
        expires_at: row.try_get("expires_at")?,
        coalescing: coalescing(row)?,
        max_retries: row.try_get("max_retries")?,
        headers: json("headers")?,
        ordering_key: row.try_get("ordering_key")?,
        dedup_key: row.try_get("dedup_key")?,
        origin: row.try_get("origin_id")?,
        archived: row.try_get("archived")?,
        payload: json("payload")?,
    })
}

fn coalescing(row: &Row) -> Result<Option<Coalescing>> {
    let Some(key) = row.try_get("coalesce_key")? else { return Ok(None) };
    let replaced: i32 = row.try_get("replaced")?;
    Ok(Some(Coalescing { key, replaced: replaced.unsigned_abs(), put_off_until: row.try_get("put_off_until")? }))
}
