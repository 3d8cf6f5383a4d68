//! What the server reads and takes for a claim.

use doorbell::ConsumerConfig;
use serde_json::Value;

use crate::{
    Lab, Result, TARGET, connect,
    ours::{Drained, Handling, Process},
};

/// The batch that is looked at.
pub(super) const BATCH: u64 = 100;

/// The server makes a lasting plan after five executions.
const WARM_UP: usize = 6;
const SAMPLES: usize = 9;

pub(super) const BLOCKS: &str = "select coalesce(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read, 0)::float8 \
    from pg_statio_user_tables where relid = 'integration.data_staging'::regclass";

/// The ranges that a consumer names when everything completed is behind it; all messages have priority 0.
const PLACE: &str = "select format(', p_lows => ''{1,0,-2147483648}'', p_highs => ''{2147483647,0,-1}'', \
    p_after_at => array[null, %L, null]::timestamptz[], p_after_ids => array[0, %s, 0]', max(created_at), max(id)) \
    from integration.data_staging where status = 'completed'";

/// The same, when they and those that are pending have all been delayed.
const AGAIN: &str = "select format(', p_lows => ''{1,0,-2147483648}'', p_highs => ''{2147483647,0,-1}'', \
    p_after_at => array[null, %L, null]::timestamptz[], p_after_ids => array[0, %s, 0], \
    p_again_at => array[null, %L, null]::timestamptz[], p_again_ids => array[0, %s, 0]', \
    max(created_at), max(id), max(requeued_at) filter (where status = 'completed'), \
    max(id) filter (where status = 'completed')) from integration.data_staging";

/// Samples of one claim.
#[derive(Debug, Default)]
pub(super) struct ClaimCost {
    pub(super) buffers: Vec<f64>,
    pub(super) ms: Vec<f64>,
}

/// Where a claim begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Where a consumer does that has completed what is completed.
    Place,
    /// The same, of what has become pending again.
    Again,
    /// Where the first claim of a target begins, and each sweep.
    Beginning,
}

/// Claims a batch again and again and rolls back: `EXPLAIN (ANALYZE, BUFFERS)` of `integration.claim`, plans warm.
pub(super) async fn claim(lab: &Lab, begin: Begin) -> Result<ClaimCost> {
    let session = connect(&lab.url).await?;
    let ranges: String = match begin {
        Begin::Beginning => String::new(),
        Begin::Place => session.query_one(PLACE, &[]).await?.try_get(0)?,
        Begin::Again => session.query_one(AGAIN, &[]).await?.try_get(0)?,
    };
    let sql = format!(
        "explain (analyze, buffers, timing off, format json) \
         select * from integration.claim('{TARGET}', 'bench', {BATCH}, p_lease => interval '1 minute'{ranges})"
    );
    let mut cost = ClaimCost::default();
    for turn in 0..WARM_UP + SAMPLES {
        session.batch_execute("begin").await?;
        let explained: Value = session.query_one(&sql, &[]).await?.try_get(0)?;
        session.batch_execute("rollback").await?;
        let plan = &explained[0]["Plan"];
        let blocks = |name: &str| plan[name].as_f64().unwrap_or(0.0);
        if turn >= WARM_UP {
            cost.buffers.push(blocks("Shared Hit Blocks") + blocks("Shared Read Blocks"));
            cost.ms.push(explained[0]["Execution Time"].as_f64().unwrap_or(f64::NAN));
        }
    }
    Ok(cost)
}

/// Drains with a process of its own; and the blocks of the table and its indexes that were looked at, per message: what
/// claiming and settling really cost, in whatever way the consumer does it.
pub(super) async fn drain(lab: &Lab, config: ConsumerConfig, messages: u64) -> Result<(Drained, f64)> {
    let before = blocks(lab).await?;
    let process = Process::start(lab).await?;
    let drained = process.drain_with(Handling::Leased, config, messages).await?;
    process.close().await?;
    Ok((drained, (blocks(lab).await? - before) / messages as f64))
}

/// Blocks of `data_staging` and its indexes that were looked at so far. Waits for the backends of ours to end.
pub(super) async fn blocks(lab: &Lab) -> Result<f64> {
    lab.alone().await?;
    lab.flushed().await?;
    lab.number(BLOCKS, &[]).await
}
