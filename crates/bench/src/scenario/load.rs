//! Wake-ups while other messages come and go: the latency at a share of what the machine can take.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use doorbell::{Broker, ConsumerConfig, MessageId, Outcome, Producer};
use futures::future::try_join_all;
use tokio::{sync::mpsc, time::sleep_until};

use super::wake;
use crate::{
    Lab, Result, SOURCE, TARGET,
    measure::{Case, Effort, Scenario, median, number, quantile, say},
};

const BYTES: usize = 100;
const PRODUCERS: usize = 16;
const CONCURRENCY: usize = 100;
const LOADS: [u32; 3] = [10, 50, 90];

/// Idle and under load, against the same floor: a NOTIFY and a raw claim while nothing else happens.
pub async fn latency(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    lab.clear().await?;
    lab.settle_down().await?;
    let idle = wake::sample(lab, effort.latencies, true).await?;
    let mut cases = idle.cases();
    let floor = cases.first().map_or(f64::NAN, |case| case.floor);
    let lanes = Lanes::open(lab).await?;
    let flat_out = lanes.run(None, effort.window * 2).await?;
    let capacity = flat_out.rate();
    say(format_args!("{PRODUCERS} producers and a consumer flat out: {}/s published and handled", number(capacity)));
    for load in LOADS {
        lab.clear().await?;
        let rate = capacity * f64::from(load) / 100.0;
        let run = lanes.run(Some(rate), effort.latencies).await?;
        say(format_args!(
            "{load} % load: {}/s, p50 {} ms, p99 {} ms from the intended time to the handler",
            number(run.rate()),
            number(median(&run.intended)),
            number(quantile(&run.intended, 0.99))
        ));
        let mut case = Case::new(format!("at {load} % load"), "ms", &run.acknowledged, &[floor])
            .lower()
            .against("idle: NOTIFY from the sender's acknowledgement + one raw flushed claim")
            .also("load_percent", f64::from(load))
            .also("offered_per_s", rate)
            .also("handled_per_s", run.rate());
        for (name, share) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            case = case
                .also(format!("acknowledged_{name}_ms"), quantile(&run.acknowledged, share))
                .also(format!("intended_{name}_ms"), quantile(&run.intended, share));
        }
        cases.push(case.series("acknowledged_ms", thinned(run.acknowledged)));
    }
    lanes.close().await;
    lab.clear().await?;
    let mut settings = wake::settings(effort);
    settings["load"] = format!(
        "{PRODUCERS} producers at an even pace, whether or not the one before was answered; one consumer, concurrency \
         {CONCURRENCY}, in the same program; 100 % is what they publish and handle flat out"
    )
    .into();
    settings["capacity_per_s"] = capacity.into();
    settings["intended"] =
        "from when the message should have been published, so that waiting producers are no excuse".into();
    Ok(Scenario::new("latency", settings, cases))
}

/// At most a thousand points of the distribution.
fn thinned(mut samples: Vec<f64>) -> Vec<f64> {
    samples.sort_by(f64::total_cmp);
    let step = samples.len().div_ceil(1000).max(1);
    samples.into_iter().step_by(step).collect()
}

/// One message under load.
struct Sent {
    intended: Instant,
    acknowledged: Instant,
}

struct Run {
    intended: Vec<f64>,
    acknowledged: Vec<f64>,
    took: Duration,
}

impl Run {
    fn rate(&self) -> f64 {
        self.intended.len() as f64 / self.took.as_secs_f64()
    }
}

/// Producers and a consumer, each side with connections of its own.
struct Lanes {
    producers: Vec<Producer>,
    publisher: Broker,
    process: Broker,
    message: doorbell::Message,
}

impl Lanes {
    async fn open(lab: &Lab) -> Result<Self> {
        let publisher = lab.broker(PRODUCERS).await?;
        let producers = (0..PRODUCERS).map(|_| publisher.producer(SOURCE)).collect();
        Ok(Self { producers, publisher, process: lab.broker(10).await?, message: lab.message(BYTES)? })
    }

    /// Publishes for so long, at a rate or as fast as it is answered; ends when everything was handled.
    async fn run(&self, rate: Option<f64>, duration: Duration) -> Result<Run> {
        let (entered, mut entries) = mpsc::unbounded_channel();
        let config = ConsumerConfig { concurrency: CONCURRENCY, ..ConsumerConfig::default() };
        let consumer = self.process.consumer(TARGET).config(config).fallback(move |delivery| {
            let _ = entered.send((delivery.id, Instant::now()));
            async { Ok(Outcome::Done) }
        });
        let consumer = consumer.start().await?;
        let began = Instant::now();
        let each = rate.map(|rate| Duration::from_secs_f64(PRODUCERS as f64 / rate.max(1.0)));
        let message = Arc::new(self.message.clone());
        let lanes = self.producers.iter().enumerate().map(|(at, producer)| {
            let (producer, message) = (producer.clone(), message.clone());
            tokio::spawn(async move { lane(&producer, &message, at, each, began, duration).await })
        });
        let mut sent: HashMap<MessageId, Sent> = HashMap::new();
        for lane in try_join_all(lanes).await? {
            sent.extend(lane?);
        }
        let mut run = Run {
            intended: Vec::with_capacity(sent.len()),
            acknowledged: Vec::with_capacity(sent.len()),
            took: Duration::ZERO,
        };
        while run.intended.len() < sent.len() {
            let (id, at) = entries.recv().await.ok_or("the consumer has ended")?;
            if let Some(message) = sent.get(&id) {
                run.intended.push(at.saturating_duration_since(message.intended).as_secs_f64() * 1000.0);
                run.acknowledged.push(at.saturating_duration_since(message.acknowledged).as_secs_f64() * 1000.0);
            }
        }
        run.took = began.elapsed();
        consumer.shutdown().await?;
        Ok(run)
    }

    async fn close(self) {
        self.process.close().await;
        self.publisher.close().await;
    }
}

/// One producer.
async fn lane(
    producer: &Producer,
    message: &doorbell::Message,
    at: usize,
    each: Option<Duration>,
    began: Instant,
    duration: Duration,
) -> Result<Vec<(MessageId, Sent)>> {
    let mut sent = Vec::new();
    // The producers take turns within each pace.
    let mut intended = began + each.unwrap_or_default() * at as u32 / PRODUCERS as u32;
    while intended < began + duration {
        match each {
            Some(_) => sleep_until(intended.into()).await,
            None => intended = Instant::now(),
        }
        if began.elapsed() > duration * 2 {
            // It cannot be kept up; what was not sent is missing in the rate.
            break;
        }
        let id = producer.publish(message).await?;
        sent.push((id, Sent { intended, acknowledged: Instant::now() }));
        intended += each.unwrap_or_default();
    }
    Ok(sent)
}
