//! One claim by itself: the function, against the raw statement on the same backlog.

use std::time::{Duration, Instant};

use crate::{BYTES, Speed};
use doorbell_bench::{Lab, Result, TARGET, connect, floor::Claimer};

const BACKLOG: u64 = 200_000;
const BATCHES: [i32; 2] = [1, 100];

const CLAIM: &str = "select * from integration.claim($1, 'bench', $2, p_lease => interval '1 hour')";

pub(crate) fn bench(speed: &mut Speed) -> Result<()> {
    let claimer = speed.runtime.block_on(Claimer::open(&speed.lab.url))?;
    let session = speed.runtime.block_on(connect(&speed.lab.url))?;
    let statement = speed.runtime.block_on(session.prepare(CLAIM))?;
    for batch in BATCHES {
        let raw = async || Ok(claimer.claim(TARGET, i64::from(batch)).await?.len());
        let function = async || Ok(session.query(&statement, &[&TARGET, &batch]).await?.len());
        let name = format!("claim/batch {batch}");
        let full = batch as usize;
        speed.runtime.block_on(speed.lab.fill(BACKLOG, BYTES))?;
        speed.measure(
            &name,
            batch as u64,
            |runtime, lab| runtime.block_on(one(lab, full, &raw)),
            |runtime, lab| runtime.block_on(one(lab, full, &function)),
        );
    }
    speed.runtime.block_on(speed.lab.clear())
}

/// One full claim from a backlog that is filled up when it is used up.
async fn one(lab: &Lab, full: usize, claim: &impl AsyncFn() -> Result<usize>) -> Result<Duration> {
    loop {
        let began = Instant::now();
        if claim().await? == full {
            return Ok(began.elapsed());
        }
        lab.fill(BACKLOG, BYTES).await?;
    }
}
