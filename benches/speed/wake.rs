//! From before publishing to the handler of an idle consumer, against the same by hand: INSERT and NOTIFY in one
//! transaction, and a raw claim as soon as it is heard.

use std::time::{Duration, Instant};

use doorbell::Outcome;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::{
    BYTES, Speed,
    floor::Claimer,
    lab::{Result, SOURCE, TARGET, raw},
    ours::NO_SWEEP,
};

/// The consumer has settled and parked again.
const IDLE: Duration = Duration::from_millis(10);

pub(crate) fn bench(speed: &mut Speed) -> Result<()> {
    by_hand(speed)?;
    let (entered, mut entries) = mpsc::unbounded_channel();
    let broker = speed.runtime.block_on(speed.lab.broker(10))?;
    let consumer = broker.consumer(TARGET).sweep(NO_SWEEP).fallback(move |delivery| {
        let _ = entered.send((delivery.id, Instant::now()));
        async { Ok(Outcome::Done) }
    });
    let consumer = speed.runtime.block_on(consumer.start())?;
    let (producer, message) = (broker.producer(SOURCE), speed.lab.message(BYTES)?);
    speed.measure("wake/idle", 1, |runtime, _| {
        runtime.block_on(async {
            tokio::time::sleep(IDLE).await;
            let began = Instant::now();
            let published = producer.publish(&message).await?;
            loop {
                let (id, at) = entries.recv().await.ok_or("the consumer has ended")?;
                if id == published {
                    return Ok(at - began);
                }
            }
        })
    });
    speed.compare("wake/idle", "wake/floor by hand");
    speed.runtime.block_on(async {
        consumer.shutdown().await?;
        broker.close().await;
        speed.lab.clear().await
    })
}

fn by_hand(speed: &mut Speed) -> Result<()> {
    let url = speed.lab.url.clone();
    let (tell, mut heard) = mpsc::unbounded_channel();
    let open = async {
        let (ear, mut connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(async move {
            let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if matches!(message, AsyncMessage::Notification(_)) {
                    let _ = tell.send(());
                }
            }
        });
        ear.batch_execute("listen by_hand").await?;
        Result::Ok((ear, raw(&url).await?, Claimer::open(&url).await?))
    };
    let (_ear, sender, claimer) = speed.runtime.block_on(open)?;
    let insert = format!(
        "insert into integration.data_staging (source_app, target_app, record_type, data) \
         values ('{SOURCE}', '{TARGET}', 'order.placed', '{}'); notify by_hand",
        speed.lab.payload(BYTES)
    );
    speed.measure("wake/floor by hand", 1, |runtime, _| {
        runtime.block_on(async {
            tokio::time::sleep(IDLE).await;
            let began = Instant::now();
            // The claim does not wait for the sender to be answered, as a consumer does not.
            let claiming = async {
                heard.recv().await.ok_or("the listener has ended")?;
                let ids = claimer.claim(TARGET, 1).await?;
                let took = began.elapsed();
                claimer.complete(&ids).await?;
                Result::Ok(took)
            };
            let sending = async { Ok(sender.batch_execute(&insert).await?) };
            let (took, ()) = tokio::try_join!(claiming, sending)?;
            Ok(took)
        })
    });
    Ok(())
}
