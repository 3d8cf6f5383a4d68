//! Draining a backlog with a consumer, against two raw claimers; with a lease and in a transaction; and what the audit log
//! costs of it (there, the floor is a drain without it).

use std::time::Duration;

use crate::{BYTES, Speed};
use doorbell_bench::{
    Lab, Result,
    floor::{self, Claimer, Way},
    ours::{Handling, Process},
};

const MESSAGES: u64 = 10_000;
const BATCH: i64 = 1000;

pub(crate) fn bench(speed: &mut Speed) -> Result<()> {
    let open = async |lab: &Lab| {
        Result::Ok(([Claimer::open(&lab.url).await?, Claimer::open(&lab.url).await?], Process::start(lab).await?))
    };
    let (claimers, process) = speed.runtime.block_on(open(&speed.lab))?;
    for (handling, way, name) in [
        (Handling::Leased, Way::Leased, "leased"),
        (Handling::Held, Way::Locked, "held"),
        (Handling::Transactional, Way::Locked, "in transactions"),
    ] {
        speed.measure(
            &format!("drain/{name}"),
            MESSAGES,
            |runtime, lab| {
                runtime.block_on(async {
                    lab.fill(MESSAGES, BYTES).await?;
                    floor::drain(&claimers, way, BATCH).await
                })
            },
            |runtime, lab| runtime.block_on(drained(lab, &process, handling, "outcomes")),
        );
    }
    for level in ["outcomes", "all"] {
        speed.measure(
            &format!("drain/audit {level}"),
            MESSAGES,
            |runtime, lab| runtime.block_on(drained(lab, &process, Handling::Leased, "off")),
            |runtime, lab| runtime.block_on(drained(lab, &process, Handling::Leased, level)),
        );
    }
    speed.runtime.block_on(async {
        process.close().await?;
        speed.lab.restore("outcomes").await
    })
}

async fn drained(lab: &Lab, process: &Process, handling: Handling, audit_level: &str) -> Result<Duration> {
    lab.execute(&format!("select integration.set_audit_level('{audit_level}')")).await?;
    lab.fill(MESSAGES, BYTES).await?;
    Ok(process.drain(handling, MESSAGES).await?.took)
}
