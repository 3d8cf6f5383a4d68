//! How sources get on, for metrics.

use super::Store;
use crate::{
    error::Result,
    rows::{MeasuredExtract, MeasuredSources},
};

/// What was published in front of a place is not all that is there: then it lags behind by what the place does, where that is a
/// time, and else by what the last look does.
const EXTRACTS: &str = "select e.name, e.target_app, e.published, e.skipped, e.last_error is not null as is_failing, \
        extract(epoch from integration.since(e.looked_at))::float8 as looked, \
        extract(epoch from integration.since(case \
            when e.watermark is null then null \
            when e.looked_at is null then e.created_at \
            when not exists (select from integration.extract_seen s where s.name = e.name) then e.looked_at \
            when e.mark_type not in ('timestamptz', 'timestamp') then e.looked_at \
            when e.place is null then e.created_at \
            when e.mark_type = 'timestamp' then e.place::timestamp at time zone 'UTC' \
            else e.place::timestamptz end))::float8 as lag \
    from integration.extracts e order by 1";
const CAPTURES_OFF: &str =
    "select x.target_app, count(*) filter (where not x.is_on) from integration.captured x group by 1 order by 1";

impl Store {
    pub(crate) async fn measured_sources(&self) -> Result<MeasuredSources> {
        let rows = self.query("see how extracts get on", EXTRACTS, &[]).await?;
        let extracts = rows.iter().map(|row| {
            let count = |name| Ok::<_, tokio_postgres::Error>(row.try_get::<_, i64>(name)?.unsigned_abs());
            Ok(MeasuredExtract {
                name: row.try_get("name")?,
                target: row.try_get("target_app")?,
                published: count("published")?,
                skipped: count("skipped")?,
                is_failing: row.try_get("is_failing")?,
                looked_seconds: row.try_get("looked")?,
                lag_seconds: row.try_get("lag")?,
            })
        });
        let extracts = extracts.collect::<Result<_>>()?;
        let rows = self.query("see which captures are off", CAPTURES_OFF, &[]).await?;
        let captures_off = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_>>()?;
        Ok(MeasuredSources { extracts, captures_off })
    }
}
