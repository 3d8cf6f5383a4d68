//! What a message costs the server's log, for each lifecycle and audit level.

use serde_json::json;

use crate::{
    AUDIT_LEVELS, Lab, Result, SOURCE, TARGET,
    floor::{self, Claimer, Inserter, Way},
    measure::{Case, Effort, Scenario, number, say},
    ours::{Handling, Process},
};

const BYTES: usize = 400;
const BATCH: usize = 100;
const LIFECYCLES: [&str; 3] = ["keep", "archive", "delete"];

const HAS_LIFECYCLES: &str = "select count(*)::float8 from information_schema.columns \
    where table_schema = 'integration' and table_name = 'targets' and column_name = 'on_complete'";
/// Where it is not installed, full pages cannot be told apart.
const HAS_RECORDS: &str = "select (to_regproc('pg_get_wal_stats') is not null)::integer::float8";

const POSITION: &str = "select pg_current_wal_insert_lsn()::text";
/// Full pages depend on when the last checkpoint was, not on the message.
const RECORDS: &str = "select (coalesce(sum(record_size), 0))::float8, \
    (coalesce(sum(count) filter (where \"resource_manager/record_type\" like 'Btree/INSERT%' \
        or \"resource_manager/record_type\" like 'Btree/DEDUP%' or \"resource_manager/record_type\" like 'Btree/SPLIT%'), 0))::float8 \
    from pg_get_wal_stats($1::text::pg_lsn, $2::text::pg_lsn, true)";
const UPDATES: &str = "select n_tup_upd::float8, n_tup_hot_upd::float8 from pg_stat_user_tables \
    where relid = 'integration.data_staging'::regclass";

/// The log of one stretch of work, per message.
#[derive(Clone, Copy, Debug)]
struct Log {
    bytes: f64,
    index_entries: f64,
}

/// Reads the log from one position to the next.
struct Reader<'a> {
    lab: &'a Lab,
    messages: f64,
    has_records: bool,
    at: String,
}

impl<'a> Reader<'a> {
    async fn new(lab: &'a Lab, messages: u64) -> Result<Self> {
        let has_records = lab.number(HAS_RECORDS, &[]).await? > 0.0;
        Ok(Self { lab, messages: messages as f64, has_records, at: lab.text(POSITION).await? })
    }

    async fn begin(&mut self) -> Result<()> {
        self.at = self.lab.text(POSITION).await?;
        Ok(())
    }

    async fn read(&mut self) -> Result<Log> {
        let from = std::mem::replace(&mut self.at, self.lab.text(POSITION).await?);
        let (bytes, index_entries) = if self.has_records {
            // The log is readable as far as it is flushed.
            self.lab
                .execute("set local synchronous_commit = on; select pg_logical_emit_message(true, 'doorbell', '')")
                .await?;
            let row = self.lab.row(RECORDS, &[&from, &self.at]).await?;
            (row.try_get(0)?, row.try_get(1)?)
        } else {
            let sql = "select pg_wal_lsn_diff($2::text::pg_lsn, $1::text::pg_lsn)::float8";
            (self.lab.number(sql, &[&from, &self.at]).await?, f64::NAN)
        };
        Ok(Log { bytes: bytes / self.messages, index_entries: index_entries / self.messages })
    }
}

pub async fn schema(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    let messages = (effort.messages / 10).max(1);
    let level = lab.audit_level().await?;
    let cases = compare(lab, messages).await?;
    lab.restore(level).await?;
    let settings = json!({
        "messages": messages, "payload_bytes": BYTES,
        "publish": "one by one, a commit each", "claim_and_complete": "the consumer, concurrency 100; floor: batches of 100",
        "bytes": "WAL records without full-page images, by pg_walinspect; where that is missing, all WAL",
        "floor": "the same rows by raw INSERT, claim and completion without triggers",
    });
    Ok(Scenario::new("schema", settings, cases))
}

async fn compare(lab: &Lab, messages: u64) -> Result<Vec<Case>> {
    let mut log = Reader::new(lab, messages).await?;
    lab.clear().await?;
    lab.settle_down().await?;
    let inserter = Inserter::open(&lab.url, lab.payload(BYTES)).await?;
    log.begin().await?;
    for _ in 0..messages {
        inserter.insert(TARGET).await?;
    }
    let floor_publish = log.read().await?;
    floor::drain(&[Claimer::open(&lab.url).await?], Way::Leased, BATCH as i64).await?;
    let floor_rest = log.read().await?;

    let has_lifecycles = lab.number(HAS_LIFECYCLES, &[]).await? > 0.0;
    let message = lab.message(BYTES)?;
    let mut cases = Vec::new();
    for lifecycle in if has_lifecycles { &LIFECYCLES[..] } else { &LIFECYCLES[..1] } {
        if has_lifecycles {
            lab.execute(&format!(
                "insert into integration.targets (target_app, on_complete) values ('{TARGET}', '{lifecycle}') \
                 on conflict (target_app) do update set on_complete = excluded.on_complete"
            ))
            .await?;
        }
        for level in AUDIT_LEVELS {
            lab.execute(&format!("select integration.set_audit_level('{level}')")).await?;
            lab.clear().await?;
            lab.settle_down().await?;
            let before = updates(lab).await?;
            let process = Process::start(lab).await?;
            let producer = process.broker.producer(SOURCE);
            log.begin().await?;
            for _ in 0..messages {
                producer.publish(&message).await?;
            }
            let publish = log.read().await?;
            let mut config = Handling::Leased.config();
            config.concurrency = BATCH;
            log.begin().await?;
            process.drain_with(Handling::Leased, config, messages).await?;
            let rest = log.read().await?;
            // As long as there is a handle, its process has a listener.
            drop(producer);
            process.close().await?;
            let after = updates(lab).await?;
            let name = format!("{lifecycle}, audit {level}");
            say(format_args!(
                "{name}: {} bytes of WAL to publish, {} to claim and complete",
                number(publish.bytes),
                number(rest.bytes)
            ));
            let total = Case::new(
                name,
                "bytes of WAL",
                &[publish.bytes + rest.bytes],
                &[floor_publish.bytes + floor_rest.bytes],
            )
            .lower()
            .against("raw, kept, unaudited")
            .also("publish_bytes", publish.bytes)
            .also("claim_and_complete_bytes", rest.bytes)
            .also("floor_publish_bytes", floor_publish.bytes)
            .also("floor_claim_and_complete_bytes", floor_rest.bytes)
            .also("hot_share", (after.1 - before.1) / (after.0 - before.0).max(1.0));
            cases.push(if log.has_records {
                total
                    .also("publish_index_entries", publish.index_entries)
                    .also("claim_and_complete_index_entries", rest.index_entries)
            } else {
                total
            });
        }
    }
    // What an installation gets without choosing.
    cases.sort_by_key(|case| case.case != "keep, audit outcomes");
    Ok(cases)
}

/// Updates and HOT ones so far, when the backends of ours have ended and reported.
async fn updates(lab: &Lab) -> Result<(f64, f64)> {
    lab.alone().await?;
    lab.flushed().await?;
    let row = lab.row(UPDATES, &[]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
