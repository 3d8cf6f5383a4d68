//! Claiming, and what becomes pending next.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_postgres::{Row, types::ToSql};
use tracing::debug;

use super::{Store, json::JsonbString};
use crate::{
    error::{Error, ErrorKind, Result},
    message::{Delivery, Found, Headers, MessageId},
};

// What was committed before the ids of transactions were read, the claim sees. It does not wait for the WAL's flush: a claim
// that is lost in a crash of the server only returns the message.
const CLAIM: &str = "select x.oldest, x.next, x.now, x.limited, x.gated, x.turn, c.* from \
    (select exists (select from integration.targets t where t.target_app = $1 and t.max_in_flight is not null) as limited, \
        integration.is_gated($1) as gated, integration.take_turn($1, $14) as turn, \
        integration.next_xid() as next, integration.clock() as now, \
        case when $12 then integration.oldest_writer() else integration.oldest_xid() end as oldest, \
        set_config('synchronous_commit', 'off', true)) x \
    left join integration.claim($1, $2, case when x.turn is null then $3 else 0 end, $4, null, $5, $6, $7, $8, $9, $10, $11, $13) c on true";
// The same, and goes on where that was refused. That is rare, so it does not come back for a turn.
const CLAIM_IN_PARTS: &str = "select x.oldest, x.next, x.now, x.limited, x.gated, c.* from \
    (select exists (select from integration.targets t where t.target_app = $1 and t.max_in_flight is not null) as limited, \
        integration.is_gated($1) as gated, integration.take_turn($1), integration.next_xid() as next, integration.clock() as now, \
        case when $12 then integration.oldest_writer() else integration.oldest_xid() end as oldest) x \
    left join integration.claim_in_parts($1, $2, $3, $4, null, $5, $6, $7, $8, $9, $10, $11) c on true";
// Once they are locked, the server ends a session whose process is frozen.
pub(super) const HOLD: &str = "select x.oldest, x.next, x.now, false as limited, false as gated, \
    case when c.id is null then c.ahead is null end as may, c.* from \
    (select case when $11 then integration.oldest_writer() else integration.oldest_xid() end as oldest, \
        integration.next_xid() as next, integration.clock() as now, \
        set_config('idle_in_transaction_session_timeout', $12, true)) x \
    left join integration.hold($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) c on true";
const CLAIM_SUSPECT: &str = "select integration.clock() as now, c.* from integration.claim_suspect($1, $2, $3) c";
const HAS_SUSPECTS: &str = "select integration.has_suspects($1, $2)";
const PROMOTE: &str = "select integration.promote($1, $2)";
const CHANNELS: &str = "select integration.channel($1) as bell, integration.due_channel($1) as due";
const REPORT_RUNS: &str = "select integration.report_runs($1, $2, $3, $4, $5)";
const WAITING: &str = "select * from integration.waiting($1)";
const PLACES: &str = "select priority, created_at, id, again_at, again_id from integration.places where target_app = $1 order by kept_at desc";
const KEEP_PLACES: &str = "select integration.keep_places($1, $2, $3, $4, $5, $6)";
const OPENS_IN: &str = "select integration.opens_in($1)";
const NEXT_DUE: &str = "select min(due_in_ms) from integration.next_due($1)";

/// How many due messages one promote takes; it is repeated until fewer are found.
const PROMOTE_LIMIT: i32 = 1000;

/// Where to look: ranges of priorities, in the order of visiting; in a range of one, what comes after a place. None:
/// everywhere, from the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    pub(crate) lows: Vec<i32>,
    pub(crate) highs: Vec<i32>,
    /// `None`: from the beginning.
    pub(crate) after_at: Vec<Option<SystemTime>>,
    pub(crate) after_ids: Vec<MessageId>,
    /// The same, of what became pending again.
    pub(crate) again_at: Vec<Option<SystemTime>>,
    pub(crate) again_ids: Vec<MessageId>,
    /// The oldest transaction is to be that of the oldest writer: whoever else is running cannot commit anything behind a place.
    /// Takes the server longer to say.
    pub(crate) writers: bool,
}

/// A message's place in the queue: when it was published, or became pending again, and its id.
pub(crate) type Place = (SystemTime, MessageId);

/// Where a look begins, of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptPlace {
    pub(crate) priority: i32,
    pub(crate) place: Place,
    /// Among what became pending again; `None`: the beginning.
    pub(crate) again: Option<Place>,
}

impl Ranges {
    pub(crate) fn push(&mut self, low: i32, high: i32, after: Option<Place>, again: Option<Place>) {
        self.lows.push(low);
        self.highs.push(high);
        self.after_at.push(after.map(|(at, _)| at));
        self.after_ids.push(after.map_or(0, |(_, id)| id));
        self.again_at.push(again.map(|(at, _)| at));
        self.again_ids.push(again.map_or(0, |(_, id)| id));
    }

    pub(crate) fn is_everywhere(&self) -> bool {
        self.lows.is_empty()
    }

    pub(crate) fn reverse(&mut self) {
        self.lows.reverse();
        self.highs.reverse();
        self.after_at.reverse();
        self.after_ids.reverse();
        self.again_at.reverse();
        self.again_ids.reverse();
    }
}

/// One look into the queue.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The oldest transaction that was running before it.
    pub(crate) oldest_xid: i64,
    /// The transaction that would have been the next one then.
    pub(crate) next_xid: i64,
    /// The server's time then.
    pub(crate) now: SystemTime,
    /// The target has a limit of messages in flight, which may have cut it short.
    pub(crate) limited: bool,
    /// A gate may have cut it short, or kept it from looking at all.
    pub(crate) gated: bool,
    /// The database refused to change some of those that were found, and they were left out.
    pub(crate) in_parts: bool,
    /// It was not this look's turn, and there was no room to wait for it: nothing was looked at. Who has the turn; empty: that
    /// was not asked, or cannot be said.
    pub(crate) turned_away: Option<String>,
    /// In claiming order.
    pub(crate) deliveries: Vec<Delivery>,
    /// Messages of busy keys that it met and left.
    pub(crate) passed: Vec<Passed>,
    /// The target's rate cut it short, and lets others through after so long.
    pub(crate) opens_in: Option<Duration>,
}

/// A message that a look met and left, because its key is busy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    pub(crate) priority: i32,
    /// Its place in the queue, which it has left until its turn comes; `None`: it is still to be looked for.
    pub(crate) place: Option<Place>,
    pub(crate) requeued_at: Option<SystemTime>,
}

/// How much a claim takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Most {
    pub(crate) messages: usize,
    /// Of one ordering key; at least 2, because only so a look says what it has passed over.
    pub(crate) of_a_key: usize,
}

/// Whose messages to claim, for whom.
#[derive(Debug)]
pub(crate) struct ClaimRequest<'a> {
    pub(crate) target: &'a str,
    pub(crate) owner: &'a Arc<str>,
    /// `None`: any record type.
    pub(crate) record_types: Option<&'a [String]>,
    /// Bounds the memory of one batch.
    pub(crate) bytes_max: i64,
}

impl ClaimRequest<'_> {
    /// Whether the bound on bytes, and not the lack of messages, may have ended a claim. The server counts payload and headers
    /// as jsonb: at most eight bytes per byte of text, and a header.
    pub(crate) fn may_be_cut(&self, deliveries: &[Delivery]) -> bool {
        let headers = |delivery: &Delivery| {
            delivery.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>()
        };
        let bytes: usize =
            deliveries.iter().map(|delivery| 8 * (delivery.payload.len() + headers(delivery)) + 64).sum();
        bytes as i64 >= self.bytes_max
    }
}

impl Store {
    /// Claims messages. `seen`: who had the turn when it was asked last, empty the first time; `None`: it is not asked.
    pub(crate) async fn claim(
        &self,
        request: &ClaimRequest<'_>,
        most: Most,
        ranges: Option<&Ranges>,
        seen: Option<&str>,
        found: Found,
    ) -> Result<Looked> {
        let limit = i32::try_from(most.messages).unwrap_or(i32::MAX);
        let series = i32::try_from(most.of_a_key.max(2)).unwrap_or(i32::MAX);
        let at = ranges.filter(|ranges| !ranges.is_everywhere());
        let params: [&(dyn ToSql + Sync); 14] = [
            &request.target,
            &&**request.owner,
            &limit,
            &request.record_types,
            &request.bytes_max,
            &at.map(|ranges| &ranges.lows),
            &at.map(|ranges| &ranges.highs),
            &at.map(|ranges| &ranges.after_at),
            &at.map(|ranges| &ranges.after_ids),
            &at.map(|ranges| &ranges.again_at),
            &at.map(|ranges| &ranges.again_ids),
            &ranges.is_some_and(|ranges| ranges.writers),
            &series,
            &seen,
        ];
        match self.query("claim messages", CLAIM, &params).await {
            Err(error) if error.is_refusal() => {
                debug!(?error, target_app = request.target, "a claim was refused; claiming in parts");
                let rows = self.query("claim messages in parts", CLAIM_IN_PARTS, &params[..12]).await?;
                Ok(Looked { in_parts: true, ..looked(&rows, request, found)? })
            }
            rows => {
                let rows = rows?;
                let turned_away = rows.first().and_then(|row| row.try_get("turn").transpose()).transpose()?;
                Ok(Looked { turned_away, ..looked(&rows, request, found)? })
            }
        }
    }

    /// Those of the targets for which something is pending.
    pub(crate) async fn waiting(&self, targets: &[String]) -> Result<Vec<String>> {
        let rows = self.query("look for waiting targets", WAITING, &[&targets]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The places that consumers of the target have kept, the newest first.
    pub(crate) async fn places(&self, target: &str) -> Result<Vec<KeptPlace>> {
        let rows = self.query("read the kept places", PLACES, &[&target]).await?;
        let place = |row: &Row| {
            let again_at: Option<SystemTime> = row.try_get("again_at")?;
            let again_id: Option<MessageId> = row.try_get("again_id")?;
            Ok(KeptPlace {
                priority: row.try_get("priority")?,
                place: (row.try_get("created_at")?, row.try_get("id")?),
                again: again_at.zip(again_id),
            })
        };
        rows.iter().map(place).collect()
    }

    /// Keeps places for the next consumer of the target.
    pub(crate) async fn keep_places(&self, target: &str, places: &[KeptPlace]) -> Result<()> {
        let priorities: Vec<i32> = places.iter().map(|kept| kept.priority).collect();
        let times: Vec<SystemTime> = places.iter().map(|kept| kept.place.0).collect();
        let ids: Vec<MessageId> = places.iter().map(|kept| kept.place.1).collect();
        let again_at: Vec<Option<SystemTime>> = places.iter().map(|kept| kept.again.map(|(at, _)| at)).collect();
        let again_ids: Vec<Option<MessageId>> = places.iter().map(|kept| kept.again.map(|(_, id)| id)).collect();
        self.query("keep places", KEEP_PLACES, &[&target, &priorities, &times, &ids, &again_at, &again_ids]).await?;
        Ok(())
    }

    /// Claims one message, at most, that was in flight when a consumer died.
    pub(crate) async fn claim_suspect(&self, request: &ClaimRequest<'_>) -> Result<Vec<Delivery>> {
        let rows = self
            .query("claim a suspect", CLAIM_SUSPECT, &[&request.target, &&**request.owner, &request.record_types])
            .await?;
        rows.iter().map(|row| delivery(row, request, Found::Sweep)).collect()
    }

    pub(crate) async fn has_suspects(&self, request: &ClaimRequest<'_>) -> Result<bool> {
        let row = self.query_one("look for suspects", HAS_SUSPECTS, &[&request.target, &request.record_types]).await?;
        Ok(row.try_get(0)?)
    }

    /// Tells the target's breaker how runs went; `down`: the handler said that its dependency is down.
    pub(crate) async fn report_runs(&self, target: &str, ok: i64, failed: i64, down: Option<&str>) -> Result<()> {
        self.query("report to the breaker", REPORT_RUNS, &[&target, &ok, &failed, &down.is_some(), &down]).await?;
        Ok(())
    }

    /// The channels on which a target's bell rings and on which its next due time is announced.
    pub(crate) async fn channels(&self, target: &str) -> Result<(String, String)> {
        let row = self.query_one("ask for the target's channels", CHANNELS, &[&target]).await?;
        Ok((row.try_get("bell")?, row.try_get("due")?))
    }

    /// Makes every due message of the targets pending; returns how many.
    pub(crate) async fn promote(&self, targets: &[String]) -> Result<usize> {
        let mut promoted = 0;
        loop {
            let row = self.query_one("promote scheduled messages", PROMOTE, &[&targets, &PROMOTE_LIMIT]).await?;
            let count: i32 = row.try_get(0)?;
            promoted += count as usize;
            if count < PROMOTE_LIMIT {
                return Ok(promoted);
            }
        }
    }

    /// How long until the target's rate lets messages through, zero: it does now; `None`: there is none.
    pub(crate) async fn opens_in(&self, target: &str) -> Result<Option<Duration>> {
        let row = self.query_one("ask when a target may be claimed from", OPENS_IN, &[&target]).await?;
        Ok(row.try_get::<_, Option<i64>>(0)?.map(|ms| Duration::from_millis(ms.max(0) as u64)))
    }

    /// How long until the next scheduled message of any of the targets is due.
    pub(crate) async fn next_due(&self, targets: &[String]) -> Result<Option<Duration>> {
        let row = self.query_one("look for scheduled messages", NEXT_DUE, &[&targets]).await?;
        let due_in_ms: Option<i64> = row.try_get(0)?;
        Ok(due_in_ms.map(|ms| Duration::from_millis(ms.max(0) as u64)))
    }
}

/// Whether the target, and what is to be held, allows it; where not, the last row says so, and names no message.
pub(super) fn may(rows: &[Row]) -> bool {
    rows.last().is_none_or(|row| row.try_get::<_, Option<bool>>("may").ok().flatten().unwrap_or(true))
}

/// Rows with the ids of transactions; at least one, whose message is null where nothing was found.
pub(super) fn looked(rows: &[Row], request: &ClaimRequest<'_>, found: Found) -> Result<Looked> {
    let Some(first) = rows.first() else {
        return Err(Error::new(ErrorKind::Schema, "claim messages: the statement did not answer with a row"));
    };
    let (oldest_xid, next_xid) = (first.try_get("oldest")?, first.try_get("next")?);
    let (now, limited, gated) = (first.try_get("now")?, first.try_get("limited")?, first.try_get("gated")?);
    let (mut deliveries, mut passed, mut opens_in) = (Vec::with_capacity(rows.len()), Vec::new(), None);
    for row in rows {
        match (row.try_get::<_, Option<MessageId>>("id")?, row.try_get::<_, Option<i32>>("attempt")?) {
            (Some(_), Some(_)) => deliveries.push(delivery(row, request, found)?),
            (Some(_), None) => passed.push(passed_over(row)?),
            (None, _) => opens_in = opens_in.or(cut_by_rate(row)?),
        }
    }
    Ok(Looked {
        oldest_xid,
        next_xid,
        now,
        limited,
        gated,
        in_parts: false,
        turned_away: None,
        deliveries,
        passed,
        opens_in,
    })
}

/// What a row that names no message says: nothing was found, or how long until the target's rate lets others through.
fn cut_by_rate(row: &Row) -> Result<Option<Duration>> {
    let (opens_at, now): (Option<SystemTime>, Option<SystemTime>) =
        (row.try_get("created_at")?, row.try_get("requeued_at")?);
    Ok(opens_at.zip(now).map(|(opens_at, now)| opens_at.duration_since(now).unwrap_or_default()))
}

fn passed_over(row: &Row) -> Result<Passed> {
    let (id, at): (MessageId, Option<SystemTime>) = (row.try_get("id")?, row.try_get("created_at")?);
    let (priority, requeued_at) = (row.try_get("priority")?, row.try_get("requeued_at")?);
    Ok(Passed { priority, place: at.map(|at| (at, id)), requeued_at })
}

/// What is in a column that anybody may have filled and cannot be read fails this message alone, where its handler would
/// have run: a claim of many does not fail for one of them.
fn delivery(row: &Row, request: &ClaimRequest<'_>, found: Found) -> Result<Delivery> {
    let (headers, unreadable) = match row.try_get::<_, Option<JsonbString>>("headers")? {
        Some(json) => headers_from(&json.0).map_or_else(
            |error| (Headers::new(), Some(format!("the headers cannot be read as a JSON object: {error}"))),
            |headers| (headers, None),
        ),
        None => (Headers::new(), None),
    };
    let payload: JsonbString = row.try_get("data")?;
    let (now, created_at): (SystemTime, SystemTime) = (row.try_get("now")?, row.try_get("created_at")?);
    Ok(Delivery {
        id: row.try_get("id")?,
        attempt: row.try_get("attempt")?,
        source: row.try_get("source_app")?,
        target: request.target.to_owned(),
        record_type: row.try_get("record_type")?,
        priority: row.try_get("priority")?,
        retry_count: row.try_get("retry_count")?,
        redrive_count: row.try_get("redrive_count")?,
        headers,
        ordering_key: row.try_get("ordering_key")?,
        origin: row.try_get("origin_id")?,
        created_at,
        requeued_at: row.try_get("requeued_at")?,
        // Both are the server's: no clock of ours is involved.
        age: now.duration_since(created_at).unwrap_or_default(),
        received: tokio::time::Instant::now(),
        found,
        canary: row.try_get("canary")?,
        ahead: row.try_get("ahead")?,
        alone: false,
        owner: request.owner.clone(),
        payload: payload.0,
        unreadable,
    })
}

/// Plain SQL may have stored any values: what is not a string is handed on as JSON text.
fn headers_from(json: &str) -> Result<Headers, serde_json::Error> {
    let values: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(json)?;
    Ok(values
        .into_iter()
        .map(|(name, value)| {
            let text = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
            (name, text)
        })
        .collect())
}
