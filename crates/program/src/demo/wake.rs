//! How long an idle consumer sleeps on after the bell.

use std::{fmt, time::Duration};

use doorbell::{Broker, ConsumerConfig, Message, MessageId, Outcome, observe::Found};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{ledger::Ledger, view::View};
use crate::exit::{Exit, Failure};

const TARGET: &str = "doorman";
const MESSAGES: u32 = 200;

/// The first ones pay for connections and plans that every process makes once.
const WARM_UP: u32 = 20;

/// Long after the last message is settled: the consumer has parked again.
const IDLE: Duration = Duration::from_millis(5);

/// A sweep within the measurement would find what the bell did not.
const NO_SWEEP: Duration = Duration::from_secs(3600);

const LOST_AFTER: Duration = Duration::from_secs(10);

/// The latencies, by one monotonic clock: publisher and consumer are the same process.
pub(super) struct WakeUps {
    /// From the publisher's acknowledgement to the handler.
    acknowledged: Histogram<u64>,
    /// From before publishing to the handler: the commit included.
    published: Histogram<u64>,
    /// How many were found by the bell.
    rung: u32,
}

impl WakeUps {
    pub(super) fn p50_ms(&self) -> f64 {
        quantile_ms(&self.acknowledged, 0.5)
    }

    pub(super) fn p99_ms(&self) -> f64 {
        quantile_ms(&self.acknowledged, 0.99)
    }
}

impl fmt::Display for WakeUps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "wake-ups: p50 {:.2} ms, p99 {:.2} ms from the publisher's acknowledgement to the handler ({:.2} and {:.2} ms from \
             before publishing); {} of {} by the bell",
            self.p50_ms(),
            self.p99_ms(),
            quantile_ms(&self.published, 0.5),
            quantile_ms(&self.published, 0.99),
            self.rung,
            self.acknowledged.len(),
        )
    }
}

/// Publishes one message after the other, each to a consumer that has nothing to do; returns the ids, too.
pub(super) async fn measure(
    broker: &Broker,
    ledger: &Ledger,
    view: &View,
) -> Result<(WakeUps, Vec<MessageId>), Failure> {
    let (entered, mut entries) = mpsc::unbounded_channel();
    let handled = ledger.clone();
    let config = ConsumerConfig { sweep: Some(NO_SWEEP), ..ConsumerConfig::default() };
    let consumer = broker.consumer(TARGET).config(config).fallback(move |delivery| {
        let _ = entered.send((Instant::now(), delivery.found));
        let ledger = handled.clone();
        async move {
            ledger.note(delivery.id).await?;
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await?;
    let producer = broker.producer("bellboy");
    let mut wake_ups = WakeUps { acknowledged: histogram()?, published: histogram()?, rung: 0 };
    let mut ids = Vec::new();
    let bar = view.bar(u64::from(WARM_UP + MESSAGES));
    for n in 0..WARM_UP + MESSAGES {
        sleep(IDLE).await;
        let message = Message::new(TARGET, "ring", &json!({ "n": n }))?;
        let before = Instant::now();
        ids.push(producer.publish(&message).await?);
        let acknowledged = Instant::now();
        let Ok(Some((entered, found))) = timeout(LOST_AFTER, entries.recv()).await else {
            return Err(Failure::new(
                Exit::Failed,
                format!("nobody woke for message {} within {LOST_AFTER:?}", ids[ids.len() - 1]),
            ));
        };
        bar.inc(1);
        if n >= WARM_UP {
            // The handler may be entered before the publisher hears of its own commit.
            record(&mut wake_ups.acknowledged, entered.saturating_duration_since(acknowledged));
            record(&mut wake_ups.published, entered.saturating_duration_since(before));
            wake_ups.rung += u32::from(found == Found::Bell);
        }
    }
    bar.finish_and_clear();
    consumer.shutdown().await?;
    Ok((wake_ups, ids))
}

/// Microseconds, up to a minute, to three digits.
fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_max(60_000_000, 3).map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
}

/// Rounded to the microseconds that were measured.
fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}
