//! Looking through the messages, page by page.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::{
    Store,
    moment::{clock, moment},
};
use crate::{
    error::Result,
    filter::{Filter, ListOrder, Moment, Status},
    message::MessageId,
    rows::{MessageRow, Page},
};

const LIST: &str = concat!(
    "select l.* from ",
    clock!(),
    " cross join lateral integration.list($1, $2, $3, $4, $5, make_interval(secs => $6), $7, $8, $9, ",
    moment!("$10", "$11", "$12"),
    ", ",
    moment!("$13", "$14", "$15"),
    ", $16, $17, $18::text::jsonb, $19, $20, ",
    moment!("$21", "$22", "$23"),
    ", ",
    moment!("$24", "$25", "$26"),
    ", $27, $28, p_redriven => $29) l"
);

const LAST_ID: &str = "select coalesce(max(d.id), 0) from integration.data_staging d";

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
        let (rows, next, looked_until) = ended(&rows, limit)?;
        Ok(Page { messages: rows.iter().map(message).collect::<Result<_>>()?, next, looked_until })
    }

    /// The ids of everything that a filter names, in the order of its index.
    pub(crate) async fn find_ids(&self, filter: &Filter, limit: Option<u32>) -> Result<Vec<MessageId>> {
        let order = order_of(filter, limit);
        let mut ids = Vec::new();
        let mut after = None;
        loop {
            let wanted = limit.map_or(IDS_PER_PAGE, |limit| IDS_PER_PAGE.min(limit - ids.len() as u32));
            if wanted == 0 {
                return Ok(ids);
            }
            let (found, next) = self.ids(filter, order, wanted, after.as_deref()).await?;
            ids.extend(found);
            after = next;
            if after.is_none() {
                return Ok(ids);
            }
        }
    }

    /// A page of ids, and where the next one begins.
    pub(crate) async fn ids(
        &self,
        filter: &Filter,
        order: Option<ListOrder>,
        limit: u32,
        after: Option<&str>,
    ) -> Result<(Vec<MessageId>, Option<String>)> {
        let rows = self.list_rows(filter, order, limit, after).await?;
        let (rows, next, _) = ended(&rows, limit)?;
        Ok((rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?, next))
    }

    /// The greatest id that was given to a message.
    pub(crate) async fn last_id(&self) -> Result<MessageId> {
        Ok(self.query_one("look for the last message", LAST_ID, &[]).await?.try_get(0)?)
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
        let (after_then, after_ago, after_day) = Moment::parts(filter.published_since);
        let (before_then, before_ago, before_day) = Moment::parts(filter.published_until);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 29] = [
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
            &after_then,
            &after_ago,
            &after_day,
            &before_then,
            &before_ago,
            &before_day,
            &filter.first_id,
            &filter.last_id,
            &filter.redriven,
        ];
        self.query("list messages", LIST, &params).await
    }
}

/// The order in which messages are taken from a list to be changed.
pub(crate) fn order_of(filter: &Filter, limit: Option<u32>) -> Option<ListOrder> {
    match filter.status {
        Some(Status::Pending | Status::Scheduled) if limit.is_some() || filter.target.is_some() => None,
        // Of all targets an index is read from end to end: no page has to merge them.
        Some(Status::Pending | Status::Scheduled | Status::Processing | Status::Failed)
            if limit.is_none() && filter.target.is_none() =>
        {
            Some(ListOrder::Target)
        }
        _ => Some(ListOrder::Oldest),
    }
}

/// The messages of a page; where the next page begins: a full page may have one; and how far was looked, where a last row that is
/// no message says that it was not to the end.
fn ended(rows: &[Row], limit: u32) -> Result<(&[Row], Option<String>, Option<SystemTime>)> {
    match rows.split_last() {
        Some((last, messages)) if last.try_get::<_, Option<MessageId>>("id")?.is_none() => {
            Ok((messages, Some(last.try_get("cursor")?), Some(last.try_get("created_at")?)))
        }
        Some((last, _)) if rows.len() >= limit as usize => Ok((rows, Some(last.try_get("cursor")?), None)),
        _ => Ok((rows, None, None)),
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
