//! Looking through the messages, page by page.

use tokio_postgres::Row;

use super::Store;
use crate::{
    error::Result,
    filter::{Filter, ListOrder, Moment, Status},
    message::MessageId,
    rows::{MessageRow, Page},
};

const LIST: &str = "select l.* from (select k.now, date_trunc('day', k.now, 'UTC') as day \
        from (select integration.clock() as now) k) c \
    cross join lateral integration.list($1, $2, $3, $4, $5, make_interval(secs => $6), $7, $8, $9, \
    coalesce($10, c.now - make_interval(secs => $11), c.day + make_interval(secs => $12) \
        - case when c.day + make_interval(secs => $12) > c.now then interval '1 day' else interval '0' end), \
    coalesce($13, c.now - make_interval(secs => $14), c.day + make_interval(secs => $15) \
        - case when c.day + make_interval(secs => $15) > c.now then interval '1 day' else interval '0' end), $16, $17, $18::text::jsonb, $19, $20) l";

/// How many ids are read at a time; each page is a statement of its own, far below its deadline.
const IDS_PER_PAGE: u32 = 10_000;

impl Store {
    pub(crate) async fn list(
        &self,
        filter: &Filter,
        order: Option<ListOrder>,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Page> {
        let rows = self.list_rows(filter, order, limit, after).await?;
        Ok(Page { next: next(&rows, limit)?, messages: rows.iter().map(message).collect::<Result<_>>()? })
    }

    /// The ids of everything that a filter names, in the order of its index.
    pub(crate) async fn find_ids(&self, filter: &Filter, limit: Option<u32>) -> Result<Vec<MessageId>> {
        let order = match filter.status {
            Some(Status::Pending | Status::Scheduled) if limit.is_some() || filter.target.is_some() => None,
            // One pass over the ids is cheaper than merging all targets' queues page by page.
            _ => Some(ListOrder::Oldest),
        };
        let mut ids = Vec::new();
        let mut after = None;
        loop {
            let wanted = limit.map_or(IDS_PER_PAGE, |limit| IDS_PER_PAGE.min(limit - ids.len() as u32));
            if wanted == 0 {
                return Ok(ids);
            }
            let rows = self.list_rows(filter, order, wanted, after.as_deref()).await?;
            ids.extend(rows.iter().map(|row| row.try_get::<_, MessageId>("id")).collect::<Result<Vec<_>, _>>()?);
            after = next(&rows, wanted)?;
            if after.is_none() {
                return Ok(ids);
            }
        }
    }

    async fn list_rows(
        &self,
        filter: &Filter,
        order: Option<ListOrder>,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Vec<Row>> {
        let (since, since_ago, since_day) = Moment::parts(filter.changed_since);
        let (until, until_ago, until_day) = Moment::parts(filter.changed_until);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 20] = [
            &filter.status.map(Status::as_str),
            &filter.target,
            &filter.record_type,
            &filter.source,
            &filter.reason,
            &filter.older_than.map(|age| age.as_secs_f64()),
            &order.map(ListOrder::as_str),
            &i32::try_from(limit).unwrap_or(i32::MAX),
            &after,
            &since,
            &since_ago,
            &since_day,
            &until,
            &until_ago,
            &until_day,
            &filter.ordering_key,
            &filter.dedup_key,
            &filter.headers,
            &filter.payload,
            &filter.completed_by,
        ];
        self.query("list messages", LIST, &params).await
    }
}

/// Where the next page begins: a full page may have one.
fn next(rows: &[Row], limit: u32) -> Result<Option<String>> {
    match rows.last() {
        Some(last) if rows.len() >= limit as usize => Ok(Some(last.try_get("cursor")?)),
        _ => Ok(None),
    }
}

pub(super) fn message(row: &Row) -> Result<MessageRow> {
    Ok(MessageRow {
        id: row.try_get("id")?,
        source: row.try_get("source_app")?,
        target: row.try_get("target_app")?,
        record_type: row.try_get("record_type")?,
        status: row.try_get::<_, &str>("status")?.parse()?,
        priority: row.try_get("priority")?,
        attempt: row.try_get("attempt")?,
        retry_count: row.try_get("retry_count")?,
        crash_count: row.try_get("crash_count")?,
        redrive_count: row.try_get("redrive_count")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        available_at: row.try_get("available_at")?,
        owner: row.try_get("owner")?,
        reason: row.try_get("reason")?,
    })
}
