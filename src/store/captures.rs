//! Captures: tables whose changes are published.

use super::Store;
use crate::{
    error::Result,
    rows::{Capture, CaptureRow},
};

const CAPTURE: &str = "select integration.capture($1::text::regclass, $2, coalesce($3, 'capture'), $4, \
        nullif($5::text[], '{}'), $6::text::jsonpath)";
const UNCAPTURE: &str = "select integration.uncapture($1::text::regclass)";
const CAPTURES: &str = "select \"table\", source_app, target_app, record_type, columns, condition, is_on, created_at \
        from integration.captured order by 1";

impl Store {
    pub(crate) async fn capture(&self, wanted: &Capture) -> Result<bool> {
        let Capture { table, target, source, record_type, columns, when } = wanted;
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [table, target, source, record_type, columns, when];
        Ok(self.query_one("capture the table", CAPTURE, &params).await?.try_get(0)?)
    }

    pub(crate) async fn uncapture(&self, table: &str) -> Result<bool> {
        Ok(self.query_one("end the capture", UNCAPTURE, &[&table]).await?.try_get(0)?)
    }

    pub(crate) async fn captures(&self) -> Result<Vec<CaptureRow>> {
        let rows = self.query("list the captures", CAPTURES, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(CaptureRow {
                    table: row.try_get("table")?,
                    target: row.try_get("target_app")?,
                    source: row.try_get("source_app")?,
                    record_type: row.try_get("record_type")?,
                    columns: row.try_get::<_, Option<_>>("columns")?.unwrap_or_default(),
                    when: row.try_get("condition")?,
                    is_on: row.try_get("is_on")?,
                    captured_at: row.try_get("created_at")?,
                })
            })
            .collect()
    }
}
