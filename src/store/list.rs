//! Looking through the messages, page by page.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::Store;
use crate::{
    error::Result,
    filter::{Filter, Order, Status},
    message::MessageId,
};

const LIST: &str = "select * from integration.list($1, $2, $3, $4, $5, make_interval(secs => $6), $7, $8, $9)";

/// How many ids are read at a time; each page is a statement of its own, far below its deadline.
const IDS_PER_PAGE: u32 = 10_000;

/// A message without its payload, as a list shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MessageRow {
    /// Its id.
    pub id: MessageId,
    /// Who published it.
    pub source: String,
    /// For whom.
    pub target: String,
    /// What it is.
    pub record_type: String,
    /// What is happening to it.
    pub status: Status,
    /// Higher goes first.
    pub priority: i32,
    /// How often it was claimed.
    pub attempt: i32,
    /// How many retries it has used.
    pub retry_count: i32,
    /// How many consumers died with it in a row.
    pub crash_count: i32,
    /// How often it was put back after it had ended.
    pub redrive_count: i32,
    /// When it was published.
    pub created_at: SystemTime,
    /// When it last changed.
    pub updated_at: SystemTime,
    /// When it becomes pending, if it is scheduled.
    pub available_at: Option<SystemTime>,
    /// Who holds it, if it is being handled.
    pub claimed_by: Option<String>,
    /// Its last error message.
    pub reason: Option<String>,
}

/// Some messages of a list, and where the next ones begin.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// In the order asked for.
    pub messages: Vec<MessageRow>,
    /// Give it to the next call of the same filter and order; `None`: this is the end.
    pub next: Option<String>,
}

impl Store {
    pub(crate) async fn list(
        &self,
        filter: &Filter,
        order: Option<Order>,
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
            _ => Some(Order::Oldest),
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
        order: Option<Order>,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Vec<Row>> {
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 9] = [
            &filter.status.map(Status::as_str),
            &filter.target,
            &filter.record_type,
            &filter.source,
            &filter.reason,
            &filter.older_than.map(|age| age.as_secs_f64()),
            &order.map(Order::as_str),
            &i32::try_from(limit).unwrap_or(i32::MAX),
            &after,
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
        claimed_by: row.try_get("claimed_by")?,
        reason: row.try_get("reason")?,
    })
}
