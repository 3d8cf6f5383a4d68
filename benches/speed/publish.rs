//! Publishing, one and a thousand at once.

use std::time::Instant;

use crate::{BYTES, Speed};
use doorbell_bench::{Result, SOURCE, TARGET, floor::Inserter};

const MANY: usize = 1000;

pub(crate) fn bench(speed: &mut Speed) -> Result<()> {
    let message = speed.lab.message(BYTES)?;
    let many = vec![message.clone(); MANY];
    let inserting = Inserter::open(&speed.lab.url, speed.lab.payload(BYTES));
    let mut inserter = speed.runtime.block_on(inserting)?;
    let broker = speed.runtime.block_on(speed.lab.broker(2))?;
    let producer = broker.producer(SOURCE);
    speed.measure(
        "publish/one",
        1,
        |runtime, _| {
            let began = Instant::now();
            runtime.block_on(inserter.insert(TARGET))?;
            Ok(began.elapsed())
        },
        |runtime, _| {
            let began = Instant::now();
            runtime.block_on(producer.publish(&message))?;
            Ok(began.elapsed())
        },
    );
    speed.runtime.block_on(speed.lab.clear())?;
    speed.measure(
        "publish/many",
        MANY as u64,
        |runtime, _| {
            let began = Instant::now();
            runtime.block_on(inserter.copy(MANY))?;
            Ok(began.elapsed())
        },
        |runtime, _| {
            let began = Instant::now();
            runtime.block_on(producer.publish_many(&many))?;
            Ok(began.elapsed())
        },
    );
    speed.runtime.block_on(async {
        broker.close().await;
        speed.lab.clear().await
    })
}
