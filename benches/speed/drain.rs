//! Draining a backlog with a consumer, against two raw claimers; with a lease and in a transaction; and what the audit log
//! costs of it.

use crate::{
    BYTES, Speed,
    floor::{self, Claimer, Way},
    lab::Result,
    ours::{Handling, Process},
};

const MESSAGES: u64 = 10_000;
const BATCH: i64 = 1000;

pub(crate) fn bench(speed: &mut Speed) -> Result<()> {
    let open = async |lab: &crate::Lab| {
        Result::Ok(([Claimer::open(&lab.url).await?, Claimer::open(&lab.url).await?], Process::start(lab).await?))
    };
    let (claimers, process) = speed.runtime.block_on(open(&speed.lab))?;
    for (handling, way, name) in
        [(Handling::Leased, Way::Leased, "leased"), (Handling::InTransaction, Way::Locked, "in transactions")]
    {
        let (ours, floor) = (format!("drain/{name}"), format!("drain/floor {name}"));
        speed.measure(&floor, MESSAGES, |runtime, lab| {
            runtime.block_on(async {
                lab.fill(MESSAGES, BYTES).await?;
                floor::drain(&claimers, way, BATCH).await
            })
        });
        speed.measure(&ours, MESSAGES, |runtime, lab| {
            runtime.block_on(async {
                lab.fill(MESSAGES, BYTES).await?;
                Ok(process.drain(handling, MESSAGES).await?.took)
            })
        });
        speed.compare(&ours, &floor);
    }
    for level in ["all", "off"] {
        let set = format!("select integration.set_audit_level('{level}')");
        speed.runtime.block_on(speed.lab.execute(&set))?;
        let name = format!("drain/audit {level}");
        speed.measure(&name, MESSAGES, |runtime, lab| {
            runtime.block_on(async {
                lab.fill(MESSAGES, BYTES).await?;
                Ok(process.drain(Handling::Leased, MESSAGES).await?.took)
            })
        });
    }
    speed.compare("drain/audit all", "drain/audit off");
    speed.compare("drain/leased", "drain/audit off");
    speed.runtime.block_on(async {
        speed.lab.execute("select integration.set_audit_level('outcomes')").await?;
        process.close().await?;
        speed.lab.clear().await
    })
}
