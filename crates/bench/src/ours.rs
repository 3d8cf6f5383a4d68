//! Our side: the public API with the settings that the figures are for, each in one place.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use doorbell::{Broker, Consumer, ConsumerBuilder, ConsumerConfig, Outcome};
use serde::de::IgnoredAny;
use tokio::{sync::Notify, time::timeout};

use crate::{Lab, Result, TARGET, TYPE};

/// A drain that takes longer has lost messages.
const DRAIN_MAX: Duration = Duration::from_secs(300);

/// A process holds nothing in transactions before it is that old.
pub const HOLDS_AFTER: Duration = Duration::from_secs(3);

/// No sweep within a measurement.
pub const NO_SWEEP: Option<Duration> = Some(Duration::from_secs(3600));

/// How messages are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Claimed with a lease, settled after the handler.
    Leased,
    /// Held by the transaction that completes the message, as by default where handlers are short.
    Held,
    /// Held, and the handlers are given the transaction.
    Transactional,
}

impl Handling {
    /// The consumer's settings for a drain.
    pub fn config(self) -> ConsumerConfig {
        match self {
            Self::Leased => ConsumerConfig { concurrency: 1000, hold: None, ..ConsumerConfig::default() },
            Self::Held => ConsumerConfig { concurrency: 1000, ..ConsumerConfig::default() },
            Self::Transactional => ConsumerConfig::default(),
        }
    }

    /// A handler that does nothing, after it has called.
    pub fn no_op(self, consumer: ConsumerBuilder, call: impl Fn() + Send + Sync + 'static) -> ConsumerBuilder {
        match self {
            Self::Leased | Self::Held => consumer.fallback(move |_| {
                call();
                async { Ok(Outcome::Done) }
            }),
            Self::Transactional => consumer.on_tx(TYPE, move |_: IgnoredAny, _, _| {
                call();
                Box::pin(async { Ok(Outcome::Done) })
            }),
        }
    }
}

/// One process of ours, its connections, plans and listener warm.
pub struct Process {
    pub broker: Broker,
    warm: Consumer,
}

impl Process {
    pub async fn start(lab: &Lab) -> Result<Self> {
        let broker = lab.broker(10).await?;
        let config = ConsumerConfig { sweep: NO_SWEEP, ..ConsumerConfig::default() };
        let warm = Handling::Leased.no_op(broker.consumer("warm").config(config), || ()).start().await?;
        Ok(Self { broker, warm })
    }

    /// Drains what is pending, from the start of a consumer to the last settle; `tenths`: when each tenth was handled.
    pub async fn drain(&self, handling: Handling, messages: u64) -> Result<Drained> {
        self.drain_with(handling, handling.config(), messages).await
    }

    pub async fn drain_with(&self, handling: Handling, config: ConsumerConfig, messages: u64) -> Result<Drained> {
        let state = Arc::new((AtomicU64::new(0), Notify::new(), std::sync::Mutex::new(Vec::with_capacity(10))));
        let told = state.clone();
        let tenth = (messages / 10).max(1);
        let began = Instant::now();
        let consumer = handling.no_op(self.broker.consumer(TARGET).config(config), move || {
            let handled = told.0.fetch_add(1, Ordering::Relaxed) + 1;
            if handled.is_multiple_of(tenth)
                && let Ok(mut tenths) = told.2.lock()
            {
                tenths.push(began.elapsed().as_secs_f64());
            }
            if handled == messages {
                told.1.notify_one();
            }
        });
        let consumer = consumer.start().await?;
        timeout(DRAIN_MAX, state.1.notified())
            .await
            .map_err(|_| format!("only {} of {messages} messages were handled", state.0.load(Ordering::Relaxed)))?;
        consumer.shutdown().await?;
        let took = began.elapsed();
        let tenths = state.2.lock().map(|tenths| tenths.clone()).unwrap_or_default();
        Ok(Drained { took, messages, tenths })
    }

    pub async fn close(self) -> Result<()> {
        self.warm.shutdown().await?;
        self.broker.close().await;
        Ok(())
    }
}

/// One drain.
#[derive(Debug)]
pub struct Drained {
    pub took: Duration,
    messages: u64,
    tenths: Vec<f64>,
}

impl Drained {
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64()
    }

    /// Messages a second, tenth by tenth.
    pub fn rates(&self) -> Vec<f64> {
        let tenth = (self.messages / 10).max(1) as f64;
        let begins = std::iter::once(0.0).chain(self.tenths.iter().copied());
        begins.zip(&self.tenths).map(|(from, to)| tenth / (to - from).max(1e-9)).collect()
    }
}
