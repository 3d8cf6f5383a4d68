//! Topics: who gets a copy of what, and what is handed out again.

use std::time::SystemTime;

use super::{
    Store,
    moment::{clock, moment},
};
use crate::{
    error::Result,
    filter::Moment,
    message::MessageId,
    rows::{Replay, ReplayPart, Subscription, TopicRow},
};

const SUBSCRIBE: &str =
    concat!("select integration.subscribe($1, $2, $3, $4, ", moment!("$5", "$6", "$7"), ", $8) from ", clock!());
const UNSUBSCRIBE: &str = "select integration.unsubscribe($1, $2)";
const TOPICS: &str = "select topic, kind, target_app, types, sources, created_at, target_app is not null and caught_up_at is null \
        as is_behind, waiting, unrouted from integration.topics order by topic, target_app";
const ROUTES: &str = "select target_app from integration.routes($1, $2, $3)";
const KEEP: &str = "select integration.keep_topics($1)";
const SPAN: &str =
    concat!("select ", moment!("$1", "$2", "$3"), ", coalesce(", moment!("$4", "$5", "$6"), ", c.now) from ", clock!());
const REPLAY: &str =
    "select copied, last_id from integration.replay($1, $2, $3, $4, nullif($5::text[], '{}'), $6, $7, $8, $9)";

/// Messages that one transaction of a replay walks over; one that copies none, ten times as many.
const BATCH: i32 = 1000;

impl Store {
    pub(crate) async fn subscribe(&self, wanted: &Subscription) -> Result<bool> {
        let (at, ago, day) = Moment::parts(wanted.since);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 8] =
            [&wanted.topic, &wanted.target, &wanted.types, &wanted.sources, &at, &ago, &day, &wanted.tap];
        Ok(self.query_one("subscribe", SUBSCRIBE, &params).await?.try_get(0)?)
    }

    pub(crate) async fn unsubscribe(&self, topic: &str, target: &str) -> Result<bool> {
        Ok(self.query_one("unsubscribe", UNSUBSCRIBE, &[&topic, &target]).await?.try_get(0)?)
    }

    pub(crate) async fn topics(&self) -> Result<Vec<TopicRow>> {
        let rows = self.query("list the topics", TOPICS, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(TopicRow {
                    topic: row.try_get("topic")?,
                    tapped: row.try_get::<_, &str>("kind")? == "queue",
                    target: row.try_get("target_app")?,
                    types: row.try_get::<_, Option<_>>("types")?.unwrap_or_default(),
                    sources: row.try_get::<_, Option<_>>("sources")?.unwrap_or_default(),
                    subscribed_at: row.try_get("created_at")?,
                    is_behind: row.try_get("is_behind")?,
                    waiting: row.try_get("waiting")?,
                    unrouted: row.try_get("unrouted")?,
                })
            })
            .collect()
    }

    pub(crate) async fn routes(&self, topic: &str, record_type: &str, source: Option<&str>) -> Result<Vec<String>> {
        let rows = self.query("look who would get it", ROUTES, &[&topic, &record_type, &source]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Hands on what waits for topics and brings late subscribers forward; returns how many messages.
    pub(crate) async fn keep_topics(&self) -> Result<usize> {
        let copied: i32 = self.query_one("hand on what waits for topics", KEEP, &[&BATCH]).await?.try_get(0)?;
        Ok(copied as usize)
    }

    /// Copies what is to be replayed, or counts it, in transactions of their own, until that many messages were walked over.
    pub(crate) async fn replay_part(
        &self,
        wanted: &Replay,
        after: MessageId,
        walk_max: Option<u32>,
    ) -> Result<ReplayPart> {
        let (since, since_ago, since_day) = Moment::parts(wanted.since);
        let (until, until_ago, until_day) = Moment::parts(wanted.until);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&since, &since_ago, &since_day, &until, &until_ago, &until_day];
        let row = self.query_one("read the clock", SPAN, &params).await?;
        let (since, until): (Option<SystemTime>, SystemTime) = (row.try_get(0)?, row.try_get(1)?);
        let Replay { target, to, types, sources, dry_run, .. } = wanted;
        let batch = if *dry_run { BATCH * 10 } else { BATCH };
        let mut part = ReplayPart { copied: 0, since, until, next: Some(after) };
        let mut walked = 0_u32;
        while let Some(after) = part.next.filter(|_| walk_max.is_none_or(|most| walked < most)) {
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 9] =
                [target, to, &since, &until, types, sources, &after, &batch, dry_run];
            let row = self.query_one("replay messages", REPLAY, &params).await?;
            part.next = row.try_get("last_id")?;
            part.copied += row.try_get::<_, i32>("copied")? as usize;
            walked = walked.saturating_add(batch as u32);
        }
        Ok(part)
    }
}
