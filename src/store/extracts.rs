//! Extracts: rows that are read and published.

use super::Store;
use crate::{
    error::Result,
    rows::{Extract, ExtractFrom, ExtractRow, Extracted},
};

const EXTRACT: &str = "select integration.set_extract($1, $2, $3::text::regclass, $4, $5, nullif($6::text[], '{}'), $7, \
        coalesce($8, 'extract'), coalesce(make_interval(secs => $9), '5 s'), coalesce(make_interval(secs => $10), '10 s'), $11)";
const UNEXTRACT: &str = "select integration.forget_extract($1)";
const PAUSE: &str = "select integration.pause_extract($1, $2)";
const MORE: &str = "select published, skipped, is_done from integration.extract_more($1, $2)";
const NEXT: &str = "select integration.next_extract()";
const LOOK: &str = "select integration.extract_look($1)";
const EXTRACTS: &str = "select name, table_id::text as \"table\", query, target_app, source_app, record_type, keys, watermark, \
        extract(epoch from every)::float8 as every, place, published, skipped, estimate, looked_at, ended_at, last_error, \
        paused_by from integration.extracts order by name";

impl Store {
    pub(crate) async fn set_extract(&self, wanted: &Extract) -> Result<bool> {
        let Extract { name, target, from, key, watermark, source, record_type } = wanted;
        let (table, query) = match from {
            ExtractFrom::Table(table) => (Some(table), None),
            ExtractFrom::Query(query) => (None, Some(query)),
        };
        let column = watermark.as_ref().map(|watermark| &watermark.column);
        let every = watermark.as_ref().map(|watermark| watermark.every.as_secs_f64());
        let grace = watermark.as_ref().map(|watermark| watermark.grace.as_secs_f64());
        let after = watermark.as_ref().and_then(|watermark| watermark.after.as_ref());
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 11] =
            [name, target, &table, &query, &column, key, record_type, source, &every, &grace, &after];
        Ok(self.query_one("make the extract", EXTRACT, &params).await?.try_get(0)?)
    }

    pub(crate) async fn forget_extract(&self, name: &str) -> Result<bool> {
        Ok(self.query_one("end the extract", UNEXTRACT, &[&name]).await?.try_get(0)?)
    }

    pub(crate) async fn pause_extract(&self, name: &str, paused: bool) -> Result<bool> {
        Ok(self.query_one("pause the extract", PAUSE, &[&name, &paused]).await?.try_get(0)?)
    }

    /// `None`: somebody else does it, or it is paused.
    pub(crate) async fn extract_more(&self, name: &str, rows: u32) -> Result<Option<Extracted>> {
        let rows = i32::try_from(rows).unwrap_or(i32::MAX);
        let row = self.query_one("extract rows", MORE, &[&name, &rows]).await?;
        let Some(published) = row.try_get::<_, Option<i32>>(0)? else { return Ok(None) };
        let (skipped, is_done): (i32, bool) = (row.try_get(1)?, row.try_get(2)?);
        Ok(Some(Extracted { published: published as u64, skipped: skipped as u64, is_done }))
    }

    /// Which extract is due, if any is; it is due again in a minute, unless the look that follows comes to its end.
    pub(crate) async fn next_extract(&self) -> Result<Option<String>> {
        Ok(self.query_one("look which extract is due", NEXT, &[]).await?.try_get(0)?)
    }

    /// A look of it; returns how many messages were published.
    pub(crate) async fn extract_look(&self, name: &str) -> Result<usize> {
        Ok(self.query_one("extract rows", LOOK, &[&name]).await?.try_get::<_, i32>(0)? as usize)
    }

    pub(crate) async fn extracts(&self) -> Result<Vec<ExtractRow>> {
        let rows = self.query("list the extracts", EXTRACTS, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(ExtractRow {
                    name: row.try_get("name")?,
                    table: row.try_get("table")?,
                    query: row.try_get("query")?,
                    target: row.try_get("target_app")?,
                    source: row.try_get("source_app")?,
                    record_type: row.try_get("record_type")?,
                    key: row.try_get("keys")?,
                    watermark: row.try_get("watermark")?,
                    every_seconds: row.try_get("every")?,
                    place: row.try_get("place")?,
                    published: row.try_get("published")?,
                    skipped: row.try_get("skipped")?,
                    estimate: row.try_get("estimate")?,
                    looked_at: row.try_get("looked_at")?,
                    ended_at: row.try_get("ended_at")?,
                    last_error: row.try_get("last_error")?,
                    paused_by: row.try_get("paused_by")?,
                })
            })
            .collect()
    }
}
