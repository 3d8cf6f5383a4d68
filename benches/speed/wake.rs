//! From before publishing to the handler of an idle consumer, against the same by hand: INSERT and NOTIFY in one
//! transaction, and a raw claim as soon as it is heard.

use std::time::{Duration, Instant};

use doorbell::{ConsumerConfig, Outcome};
use doorbell_bench::{Lab, Result, SOURCE, TARGET, floor::Claimer, ours::NO_SWEEP, raw};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::{BYTES, Speed};

/// The consumer has settled and parked again.
const IDLE: Duration = Duration::from_millis(10);

/// Messages of the floor, which our consumer does not see.
const BY_HAND: &str = "by_hand";

pub(crate) fn bench(speed: &mut Speed) -> Result<()> {
    let (entered, mut entries) = mpsc::unbounded_channel();
    let broker = speed.runtime.block_on(speed.lab.broker(10))?;
    let config = ConsumerConfig { sweep: NO_SWEEP, ..ConsumerConfig::default() };
    let consumer = broker.consumer(TARGET).config(config).fallback(move |delivery| {
        let _ = entered.send((delivery.id, Instant::now()));
        async { Ok(Outcome::Done) }
    });
    let consumer = speed.runtime.block_on(consumer.start())?;
    let (producer, message) = (broker.producer(SOURCE), speed.lab.message(BYTES)?);
    let mut by_hand = speed.runtime.block_on(ByHand::open(&speed.lab))?;
    speed.measure(
        "wake/idle",
        1,
        |runtime, _| runtime.block_on(by_hand.once()),
        |runtime, _| {
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
        },
    );
    speed.runtime.block_on(async {
        consumer.shutdown().await?;
        broker.close().await;
        speed.lab.clear().await
    })
}

/// A publisher and a listener without us.
struct ByHand {
    _ear: Client,
    heard: mpsc::UnboundedReceiver<()>,
    sender: Client,
    claimer: Claimer,
    insert: String,
}

impl ByHand {
    async fn open(lab: &Lab) -> Result<Self> {
        let (tell, heard) = mpsc::unbounded_channel();
        let (ear, mut connection) = tokio_postgres::connect(&lab.url, NoTls).await?;
        tokio::spawn(async move {
            let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if matches!(message, AsyncMessage::Notification(_)) {
                    let _ = tell.send(());
                }
            }
        });
        ear.batch_execute("listen by_hand").await?;
        let insert = format!(
            "insert into integration.data_staging (source_app, target_app, record_type, data) \
             values ('{SOURCE}', '{BY_HAND}', 'order.placed', '{}'); notify by_hand",
            lab.payload(BYTES)
        );
        let (sender, claimer) = (raw(&lab.url).await?, Claimer::open(&lab.url).await?);
        Ok(Self { _ear: ear, heard, sender, claimer, insert })
    }

    async fn once(&mut self) -> Result<Duration> {
        tokio::time::sleep(IDLE).await;
        let began = Instant::now();
        // The claim does not wait for the sender to be answered, as a consumer does not.
        let claiming = async {
            self.heard.recv().await.ok_or("the listener has ended")?;
            let ids = self.claimer.claim(BY_HAND, 1).await?;
            let took = began.elapsed();
            self.claimer.complete(&ids).await?;
            Result::Ok(took)
        };
        let sending = async { Ok(self.sender.batch_execute(&self.insert).await?) };
        let (took, ()) = tokio::try_join!(claiming, sending)?;
        Ok(took)
    }
}
