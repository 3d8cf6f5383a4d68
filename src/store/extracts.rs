//! Extracts: rows that are read and published.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::types::{ToSql, Type};

use super::{Store, foreign::ForeignDatabase};
use crate::{
    error::{Error, Result},
    rows::{Extract, ExtractFrom, ExtractRow, Extracted},
};

const EXTRACT: &str = "select integration.set_extract($1, $2, $3::text::regclass, $4, $5, nullif($6::text[], '{}'), $7, \
        coalesce($8, 'extract'), coalesce(make_interval(secs => $9), '5 s'), coalesce(make_interval(secs => $10), '10 s'), $11)";
const FINDS: &str = "select integration.extract_finds()";
const PROBE: &str = "select integration.extract_probe(integration.extract_query(null, $1), $2)";
const EXTRACT_FOREIGN: &str = "select integration.set_foreign_extract($1, $2, $3, $4::text::jsonb, $5, nullif($6::text[], '{}'), $7, \
        coalesce($8, 'extract'), coalesce(make_interval(secs => $9), '5 s'), coalesce(make_interval(secs => $10), '10 s'), $11)";
const ASKS: &str = "select as_of, rows, moment, seen, every from integration.extract_asks($1, $2)";
const TAKE: &str = "select published, skipped, is_done from integration.extract_take($1, $2, $3, $4::text::jsonb, $5::text::jsonb, \
        $6::text[]::jsonb[], $7, $8, $9, $10::bigint::integer)";
const NOTE: &str = "select integration.note_extract($1, $2)";
const UNEXTRACT: &str = "select integration.forget_extract($1)";
const PAUSE: &str = "select integration.pause_extract($1, $2)";
const MORE: &str = "select published, skipped, is_done from integration.extract_more($1, $2)";
const NEXT: &str = "select integration.next_extract()";
const LOOK: &str = "select integration.extract_look($1)";
const EXTRACTS: &str = "select name, coalesce(table_id::text, label) as \"table\", case when label is null then query end as query, \
        is_foreign, target_app, source_app, record_type, keys, watermark, \
        extract(epoch from every)::float8 as every, place, published, skipped, estimate, looked_at, ended_at, last_error, \
        paused_by from integration.extracts order by name";

type Texts = Vec<Option<String>>;

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

    /// The same of another database, which is asked for what is not said.
    pub(crate) async fn set_foreign_extract(&self, source: &ForeignDatabase, wanted: &Extract) -> Result<bool> {
        let Extract { name, target, from, key, watermark, source: app, record_type } = wanted;
        let finds: String = self.query_one("make the extract", FINDS, &[]).await?.try_get(0)?;
        let (query, mut found) = match from {
            ExtractFrom::Query(query) => (query.clone(), json!({})),
            ExtractFrom::Table(table) => {
                let found = source.read(async |there| there.document(&finds, table).await).await?;
                let unreadable = |_| Error::invalid("the database that is read describes no table");
                let found: serde_json::Value = serde_json::from_str(&found.unwrap_or_default()).map_err(unreadable)?;
                (found["query"].as_str().unwrap_or_default().to_owned(), found)
            }
        };
        let own: Vec<&str> = found["keys"].as_array().into_iter().flatten().filter_map(|key| key.as_str()).collect();
        let keys = key.iter().map(String::as_str).chain(own.into_iter().filter(|_| key.is_empty()));
        let columns: Vec<&str> = keys.chain(watermark.iter().map(|watermark| watermark.column.as_str())).collect();
        if !columns.is_empty() {
            let probe: String = self.query_one("make the extract", PROBE, &[&query, &columns]).await?.try_get(0)?;
            let types =
                source.read(async |there| Ok((there.document(&probe, "").await?, there.estimate(&query).await?)));
            let (types, rows) = types.await?;
            found["types"] = serde_json::from_str(&types.unwrap_or_default()).unwrap_or_default();
            found["rows"] = json!(rows);
        }
        let column = watermark.as_ref().map(|watermark| &watermark.column);
        let every = watermark.as_ref().map(|watermark| watermark.every.as_secs_f64());
        let grace = watermark.as_ref().map(|watermark| watermark.grace.as_secs_f64());
        let after = watermark.as_ref().and_then(|watermark| watermark.after.as_ref());
        let found = found.to_string();
        let params: [&(dyn ToSql + Sync); 11] =
            [name, target, &query, &found, &column, key, record_type, app, &every, &grace, &after];
        Ok(self.query_one("make the extract", EXTRACT_FOREIGN, &params).await?.try_get(0)?)
    }

    /// Publishes the next rows of an extract of another database; `None`: somebody else has done it meanwhile, or it is paused.
    /// And when to look again, where it does.
    pub(crate) async fn extract_more_from(
        &self,
        source: &ForeignDatabase,
        name: &str,
        rows: u32,
    ) -> Result<(Option<Extracted>, Option<Duration>)> {
        let rows = i32::try_from(rows).unwrap_or(i32::MAX).clamp(1, 10_000);
        let asks = self.query_one("ask what to extract", ASKS, &[&name, &rows]).await?;
        let every = asks.try_get::<_, Option<f64>>("every")?.map(Duration::from_secs_f64);
        let Some(as_of) = asks.try_get::<_, Option<String>>("as_of")? else { return Ok((None, every)) };
        let (read, moment): (String, Option<String>) = (asks.try_get("rows")?, asks.try_get("moment")?);
        let seen: Option<Vec<String>> = asks.try_get("seen")?;
        let (before, page, after) = source
            .read(async |there| {
                let asked = async || match &moment {
                    Some(moment) => there.document(moment, "").await,
                    None => Ok(None),
                };
                let before = asked().await?;
                let page = there.rows(&read, &[(&seen, Type::TEXT_ARRAY)]).await?;
                Ok((before, page, asked().await?))
            })
            .await?;
        let page = page.first().ok_or_else(|| Error::invalid("the database that is read answers with no row"))?;
        let found: Option<Vec<String>> = page.try_get(0)?;
        let (keys, marks): (Option<Texts>, Option<Texts>) = (page.try_get(1)?, page.try_get(2)?);
        let (last, count): (Option<String>, i64) = (page.try_get(3)?, page.try_get(4)?);
        let params: [&(dyn ToSql + Sync); 10] =
            [&name, &as_of, &rows, &before, &after, &found, &keys, &marks, &last, &count];
        Ok((extracted(&self.query_one("publish extracted rows", TAKE, &params).await?)?, every))
    }

    /// Why an extract does not get on, for those who ask.
    pub(crate) async fn note_extract(&self, name: &str, why: &str) -> Result<()> {
        self.query_one("note why an extract fails", NOTE, &[&name, &why]).await.map(drop)
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
        extracted(&self.query_one("extract rows", MORE, &[&name, &rows]).await?)
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
                    is_foreign: row.try_get("is_foreign")?,
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

/// `None`: somebody else does it, or it is paused.
fn extracted(row: &tokio_postgres::Row) -> Result<Option<Extracted>> {
    let Some(published) = row.try_get::<_, Option<i32>>(0)? else { return Ok(None) };
    let (skipped, is_done): (i32, bool) = (row.try_get(1)?, row.try_get(2)?);
    Ok(Some(Extracted { published: published as u64, skipped: skipped as u64, is_done }))
}
