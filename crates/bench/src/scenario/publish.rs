//! Publishing one by one and many at once, against the same rows without triggers.

use std::time::{Duration, Instant};

use doorbell::{Consumer, ConsumerConfig, Outcome, Producer};
use futures::{StreamExt, future::try_join_all};
use serde_json::json;
use tokio_postgres::AsyncMessage;

use crate::{
    Lab, Result, SOURCE, TARGET,
    floor::Inserter,
    measure::{Case, Effort, Scenario, median, number, say},
    ours::{Handling, NO_SWEEP},
};

const BYTES: usize = 200;
const PRODUCERS: [usize; 3] = [1, 8, 32];
const MANY: usize = 1000;
const BULK_PRODUCERS: [usize; 2] = [1, 4];

/// Slower than any producer: its backlog grows, it never parks.
const BUSY_HANDLING: Duration = Duration::from_millis(20);
const BUSY_BACKLOG: u64 = 2000;

/// Who consumes meanwhile, on both sides alike.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Consumers {
    /// 8 handlers of 20 ms each with a backlog that grows.
    Busy,
    /// Parked; handles at once what it hears of. On the side of the floor it hears nothing.
    Idle,
}

/// Single rows, a commit each.
pub async fn publish(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    let mut cases = Vec::new();
    for consumers in [Consumers::Busy, Consumers::Idle] {
        for producers in PRODUCERS {
            cases.extend(with(lab, effort, consumers, producers).await?);
        }
    }
    let settings = json!({
        "payload_bytes": BYTES, "window_s": effort.window.as_secs_f64(), "rounds": effort.rounds,
        "connections": "one per producer, on both sides",
        "producers": "tasks of one process, so that those of publish() share statements; each plain INSERT is a transaction of its own, as in any language",
        "busy": "8 handlers of 20 ms on a growing backlog, on both sides",
        "idle": "a parked consumer that handles what it is told of; the floor tells it nothing, so ours includes waking, looking and settling, as by default",
        "producers_vary": PRODUCERS,
    });
    Ok(Scenario::new("publish", settings, cases))
}

async fn with(lab: &Lab, effort: &Effort, consumers: Consumers, producers: usize) -> Result<[Case; 2]> {
    lab.clear().await?;
    lab.add(TARGET, "pending", if consumers == Consumers::Busy { BUSY_BACKLOG } else { 0 }, BYTES).await?;
    lab.settle_down().await?;
    let floor = try_join_all((0..producers).map(|_| Inserter::open(&lab.url, lab.payload(BYTES)))).await?;
    let plain = try_join_all((0..producers).map(|_| Inserter::ringing(&lab.url, lab.payload(BYTES)))).await?;
    let publisher = lab.broker(producers).await?;
    let ours: Vec<Producer> = (0..producers).map(|_| publisher.producer(SOURCE)).collect();
    let message = lab.message(BYTES)?;
    let process = lab.broker(10).await?;
    let consumer = consume(&process, consumers).await?;
    let mut bells = Bells::listen(lab).await?;
    let (mut figures, mut plains, mut floors, mut rung, mut published) = (Vec::new(), Vec::new(), Vec::new(), 0, 0.0);
    // Connections and plans are made in a first, short round that does not count.
    for round in 0..=effort.rounds {
        let window = if round == 0 { effort.window / 10 } else { effort.window };
        let raw = for_a_while(window, &floor, async |inserter| inserter.insert(TARGET).await.map(|_| ())).await?;
        rest(lab, consumers).await?;
        let by_hand = for_a_while(window, &plain, async |inserter| inserter.insert(TARGET).await.map(|_| ())).await?;
        rest(lab, consumers).await?;
        bells.count();
        let rate =
            for_a_while(window, &ours, async |producer| Ok(producer.publish(&message).await.map(|_| ())?)).await?;
        if round > 0 {
            rung += bells.count();
            published += rate * window.as_secs_f64();
            floors.push(raw);
            plains.push(by_hand);
            figures.push(rate);
        }
        rest(lab, consumers).await?;
    }
    consumer.shutdown().await?;
    process.close().await;
    publisher.close().await;
    let name = if consumers == Consumers::Busy { "busy" } else { "idle" };
    say(format_args!(
        "publish, {producers} producers, consumers {name}: floor {}/s, with the trigger {}/s, ours {}/s",
        number(median(&floors)),
        number(median(&plains)),
        number(median(&figures))
    ));
    let is_headline = consumers == Consumers::Busy && producers == 32;
    Ok([(figures, "publish()"), (plains, "plain INSERT")].map(|(samples, what)| {
        let case =
            Case::new(format!("{what}, {producers} producers, consumers {name}"), "messages/s", &samples, &floors)
                .against("the same INSERT, prepared, without triggers")
                .also("producers", producers as f64)
                .also("bells_per_1000", f64::from(rung) / published * 1000.0);
        if is_headline { case.target(0.95) } else { case }
    }))
}

async fn consume(process: &doorbell::Broker, consumers: Consumers) -> Result<Consumer> {
    let builder = process.consumer(TARGET);
    Ok(match consumers {
        Consumers::Busy => builder.fallback(|_| async {
            tokio::time::sleep(BUSY_HANDLING).await;
            Ok(Outcome::Done)
        }),
        // As by default.
        Consumers::Idle => {
            Handling::Held.no_op(builder.config(ConsumerConfig { sweep: NO_SWEEP, ..Handling::Held.config() }), || ())
        }
    }
    .start()
    .await?)
}

/// Lets an idle consumer handle what it was told of and what it was not, so that it is idle again.
async fn rest(lab: &Lab, consumers: Consumers) -> Result<()> {
    if consumers == Consumers::Idle {
        lab.execute(&format!("select integration.ring('{TARGET}')")).await?;
        lab.drained().await?;
    }
    Ok(())
}

/// Everybody repeats the same for a while; how often a second in all.
pub(super) async fn for_a_while<T>(window: Duration, all: &[T], once: impl AsyncFn(&T) -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    let counts = all.iter().map(|one| async {
        let mut count = 0u64;
        while began.elapsed() < window {
            once(one).await?;
            count += 1;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(count)
    });
    let count: u64 = try_join_all(counts).await?.into_iter().sum();
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// A listener that does not park: it hears what is rung for others.
struct Bells {
    _client: tokio_postgres::Client,
    heard: tokio::sync::watch::Receiver<u32>,
    counted: u32,
}

impl Bells {
    async fn listen(lab: &Lab) -> Result<Self> {
        let (client, mut connection) = tokio_postgres::connect(&lab.url, tokio_postgres::NoTls).await?;
        let (tell, heard) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if matches!(message, AsyncMessage::Notification(_)) {
                    tell.send_modify(|count| *count += 1);
                }
            }
        });
        let channel: String = lab.text(&format!("select integration.channel('{TARGET}')")).await?;
        client.batch_execute(&format!("listen {channel}")).await?;
        Ok(Self { _client: client, heard, counted: 0 })
    }

    /// How many since the last count.
    fn count(&mut self) -> u32 {
        let heard = *self.heard.borrow();
        heard - std::mem::replace(&mut self.counted, heard)
    }
}

/// Many in one call.
pub async fn bulk(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    let mut cases = Vec::new();
    let many = vec![lab.message(BYTES)?; MANY];
    for producers in BULK_PRODUCERS {
        let mut floor = Vec::new();
        for _ in 0..producers {
            floor.push(tokio::sync::Mutex::new(Inserter::open(&lab.url, lab.payload(BYTES)).await?));
        }
        let publisher = lab.broker(producers).await?;
        let ours: Vec<Producer> = (0..producers).map(|_| publisher.producer(SOURCE)).collect();
        let (mut figures, mut floors) = (Vec::new(), Vec::new());
        for round in 0..=effort.rounds {
            let window = if round == 0 { effort.window / 10 } else { effort.window };
            lab.clear().await?;
            let raw = for_a_while(window, &floor, async |inserter| inserter.lock().await.copy(MANY).await).await?;
            lab.clear().await?;
            let rate =
                for_a_while(window, &ours, async |producer| Ok(producer.publish_many(&many).await.map(|_| ())?))
                    .await?;
            if round > 0 {
                floors.push(raw * MANY as f64);
                figures.push(rate * MANY as f64);
                say(format_args!(
                    "bulk, {producers} producers, round {round}: floor {}/s, ours {}/s",
                    number(raw * MANY as f64),
                    number(rate * MANY as f64)
                ));
            }
        }
        publisher.close().await;
        let case = Case::new(format!("{producers} producers"), "messages/s", &figures, &floors)
            .against("binary COPY of the same rows and columns, without triggers")
            .also("producers", producers as f64);
        cases.push(if producers == 1 { case.target(0.9) } else { case });
    }
    lab.clear().await?;
    let settings = json!({
        "payload_bytes": BYTES, "messages_per_call": MANY, "window_s": effort.window.as_secs_f64(), "rounds": effort.rounds,
        "ids": "ours reserves and returns them; the floor counts them on the client", "producers_vary": BULK_PRODUCERS,
    });
    Ok(Scenario::new("bulk", settings, cases))
}
