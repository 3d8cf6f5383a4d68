//! Schedules: what is published again and again.

use std::{collections::BTreeMap, time::SystemTime};

use super::Store;
use crate::{
    error::Result,
    message::MessageId,
    rows::{Schedule, ScheduleRow, When},
};

const SCHEDULE: &str = "select integration.schedule($1, $2, $3, $4::text::jsonb, $5, make_interval(secs => $6), \
        coalesce($7, 'UTC'), $8, $9::text::jsonb, $10, $11, $12, null, make_interval(secs => $13), $14, p_overlap => $15)";
const UNSCHEDULE: &str = "select integration.unschedule($1)";
const PAUSE: &str = "select integration.pause_schedule($1, $2)";
const FIRE: &str = "select integration.fire_schedule($1)";
const SCHEDULES: &str = "select name, target_app, record_type, cron, extract(epoch from every)::float8 as every, time_zone, \
        nullif(next_at, 'infinity') as next_at, last_at, last_id, fired, paused_by from integration.schedules order by name";

#[cfg(feature = "metrics")]
const LATENESS: &str = "select target_app, greatest(0, extract(epoch from integration.clock() - min(next_at)))::float8 \
    from integration.schedules where paused_at is null and next_at < 'infinity' group by target_app";

// From the next one on each is found from the one before.
const NEXT_TICKS: &str = "with recursive ticks (name, cron, time_zone, every, starts_at, tick, number) as (\
        select name, cron, time_zone, every, starts_at, next_at, 1 from integration.schedules \
         where paused_by is null and next_at < 'infinity' \
        union all \
        select t.name, t.cron, t.time_zone, t.every, t.starts_at, n.tick, t.number + 1 from ticks t, \
               lateral integration.tick_after(t.cron, t.time_zone, t.every, t.starts_at, t.tick) n (tick) \
         where t.number < $1 and n.tick < 'infinity') \
    select name, tick from ticks order by name, tick";

impl Store {
    pub(crate) async fn schedule(&self, schedule: &Schedule) -> Result<SystemTime> {
        let Schedule { name, when, message, source, missed, skip_overlap, jitter } = schedule;
        let (cron, every, zone) = match when {
            When::Cron { expression, zone } => (Some(expression), None, Some(zone)),
            When::Every(every) => (None, Some(every.as_secs_f64()), None),
        };
        let (overlap, jitter) = (if *skip_overlap { "skip" } else { "allow" }, jitter.as_secs_f64());
        let max_retries = message.max_retries.map(|retries| i32::try_from(retries).unwrap_or(i32::MAX));
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 15] = [
            name,
            &message.target,
            &message.record_type,
            &message.payload.get(),
            &cron,
            &every,
            &zone,
            source,
            &message.headers_json(),
            &message.priority,
            &message.ordering_key,
            &max_retries,
            &jitter,
            &missed.as_str(),
            &overlap,
        ];
        Ok(self.query_one("schedule", SCHEDULE, &params).await?.try_get(0)?)
    }

    pub(crate) async fn next_ticks(&self, most: u32) -> Result<BTreeMap<String, Vec<SystemTime>>> {
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        let mut ticks: BTreeMap<String, Vec<SystemTime>> = BTreeMap::new();
        for row in self.query("foresee the ticks of schedules", NEXT_TICKS, &[&most]).await? {
            ticks.entry(row.try_get(0)?).or_default().push(row.try_get(1)?);
        }
        Ok(ticks)
    }

    pub(crate) async fn unschedule(&self, name: &str) -> Result<bool> {
        Ok(self.query_one("end the schedule", UNSCHEDULE, &[&name]).await?.try_get(0)?)
    }

    pub(crate) async fn pause_schedule(&self, name: &str, paused: bool) -> Result<bool> {
        Ok(self.query_one("pause the schedule", PAUSE, &[&name, &paused]).await?.try_get(0)?)
    }

    pub(crate) async fn fire_schedule(&self, name: &str) -> Result<MessageId> {
        Ok(self.query_one("fire the schedule", FIRE, &[&name]).await?.try_get(0)?)
    }

    #[cfg(feature = "metrics")]
    pub(crate) async fn lateness_of_schedules(&self) -> Result<Vec<(String, f64)>> {
        let rows = self.query("see how late schedules are", LATENESS, &[]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    pub(crate) async fn schedules(&self) -> Result<Vec<ScheduleRow>> {
        let rows = self.query("list the schedules", SCHEDULES, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(ScheduleRow {
                    name: row.try_get("name")?,
                    target: row.try_get("target_app")?,
                    record_type: row.try_get("record_type")?,
                    cron: row.try_get("cron")?,
                    every_seconds: row.try_get("every")?,
                    zone: row.try_get("time_zone")?,
                    next_at: row.try_get("next_at")?,
                    last_at: row.try_get("last_at")?,
                    last_id: row.try_get("last_id")?,
                    fired: row.try_get("fired")?,
                    paused_by: row.try_get("paused_by")?,
                })
            })
            .collect()
    }
}
