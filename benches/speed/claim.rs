//! One claim by itself: the function, against the raw statement on the same backlog.

use std::time::Instant;

use crate::{
    BYTES, Speed,
    floor::Claimer,
    lab::{Result, TARGET, connect},
};

const BACKLOG: u64 = 200_000;
const BATCHES: [i32; 2] = [1, 100];

const CLAIM: &str = "select * from integration.claim($1, 'bench', $2, p_lease => interval '1 hour')";

pub(crate) fn bench(speed: &mut Speed) -> Result<()> {
    let claimer = speed.runtime.block_on(Claimer::open(&speed.lab.url))?;
    let session = speed.runtime.block_on(connect(&speed.lab.url))?;
    let statement = speed.runtime.block_on(session.prepare(CLAIM))?;
    for batch in BATCHES {
        let (ours, floor) = (format!("claim/batch {batch}"), format!("claim/floor batch {batch}"));
        let raw = async || Ok(claimer.claim(TARGET, i64::from(batch)).await?.len());
        let function = async || Ok(session.query(&statement, &[&TARGET, &batch]).await?.len());
        one(speed, &floor, batch as u64, raw)?;
        one(speed, &ours, batch as u64, function)?;
        speed.compare(&ours, &floor);
    }
    speed.runtime.block_on(speed.lab.clear())
}

/// Claims from a backlog that is filled up when it is used up.
fn one(speed: &mut Speed, name: &str, batch: u64, claim: impl AsyncFn() -> Result<usize>) -> Result<()> {
    speed.runtime.block_on(speed.lab.fill(BACKLOG, BYTES))?;
    speed.measure(name, batch, |runtime, lab| {
        runtime.block_on(async {
            loop {
                let began = Instant::now();
                if claim().await? == batch as usize {
                    return Ok(began.elapsed());
                }
                lab.fill(BACKLOG, BYTES).await?;
            }
        })
    });
    Ok(())
}
