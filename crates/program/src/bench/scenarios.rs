//! What can be measured, and how much of it.

use std::time::Duration;

use clap::{Args, ValueEnum};
use doorbell_bench::{
    Lab,
    measure::{Effort, Scenario},
    scenario,
};

use super::failure::failure;
use crate::{duration, exit::Failure};

/// The scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// One message a commit, 1, 8 and 32 producers, consumers busy and idle
    Publish,
    /// 1000 messages a call
    Bulk,
    /// A backlog of messages whose handlers do nothing, payloads of 100 B, 1 KB and 10 KB, always leased
    Drain,
    /// The same as by default: held where handlers are short
    HeldDrain,
    /// The same with transactional handlers
    TxDrain,
    /// What a claim costs with many messages pending or scheduled
    Backlog,
    /// What a claim costs while another session keeps vacuum from cleaning up
    Pinned,
    /// What ordering keys cost: one, 50 and 100,000, with and without a pinned horizon
    Keys,
    /// One event to three subscribers, beside three publishes
    Fanout,
    /// Writes into a captured table, beside one that is not
    Capture,
    /// From a request to its reply
    Request,
    /// 1 to 64 consumer processes on one target
    Fleet,
    /// From the publisher's acknowledgement to the handler of an idle consumer
    Wake,
    /// 1000 consumers in one process that have nothing to do
    Idle,
    /// What numbers cost where nobody folds the counters and with 2000 targets, and a list of what is not there
    Reads,
    /// WAL and index entries per message, by lifecycle and audit level
    Schema,
    /// Wake-ups under load (as `doorbell latency`)
    #[value(skip)]
    Latency,
}

impl Name {
    async fn run(self, lab: &Lab, effort: &Effort) -> doorbell_bench::Result<Option<Scenario>> {
        match self {
            Self::Publish => scenario::publish(lab, effort).await,
            Self::Bulk => scenario::bulk(lab, effort).await,
            Self::Drain => scenario::drain(lab, effort).await,
            Self::HeldDrain => scenario::held_drain(lab, effort).await,
            Self::TxDrain => scenario::tx_drain(lab, effort).await,
            Self::Backlog => scenario::backlog(lab, effort).await,
            Self::Pinned => scenario::pinned(lab, effort).await,
            Self::Keys => scenario::keys(lab, effort).await,
            Self::Fanout => scenario::fanout(lab, effort).await,
            Self::Capture => scenario::capture(lab, effort).await,
            Self::Request => scenario::request(lab, effort).await,
            Self::Fleet => scenario::fleet(lab, effort).await,
            Self::Wake => scenario::wake(lab, effort).await,
            Self::Idle => scenario::idle(lab, effort).await,
            Self::Reads => scenario::reads(lab, effort).await,
            Self::Schema => scenario::schema(lab, effort).await,
            Self::Latency => scenario::latency(lab, effort).await,
        }
    }
}

/// How much to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct EffortArgs {
    /// How long each sample of a rate takes, and all samples of a latency together [default: 2 and 10]
    #[arg(long, value_name = "DURATION", value_parser = duration::between("1ms", "1d"), allow_hyphen_values = true)]
    seconds: Option<Duration>,

    /// How often floor and figure take turns [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// How many messages are drained [default: 20000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10..))]
    messages: Option<u64>,

    /// How many messages a deep backlog has [default: 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(100..))]
    deep: Option<u64>,

    /// How many consumer processes a fleet has at most [default: 64]
    #[arg(long, value_name = "N")]
    processes: Option<usize>,

    /// How many consumers are idle [default: 1000]
    #[arg(long, value_name = "N")]
    consumers: Option<usize>,

    /// Less of everything, in about a quarter of the time
    #[arg(long)]
    quick: bool,
}

impl EffortArgs {
    #[cfg(any(feature = "report", test))]
    pub(super) fn is_quick(&self) -> bool {
        self.quick
    }

    /// With less of what was not said.
    #[cfg(any(feature = "report", test))]
    pub(super) fn hurried(self) -> Self {
        Self { quick: true, ..self }
    }

    pub(super) fn effort(&self) -> Effort {
        let quick = |usual, quick| if self.quick { quick } else { usual };
        let seconds = |usual, hurried| self.seconds.unwrap_or(Duration::from_millis(quick(usual, hurried)));
        Effort {
            window: seconds(2000, 500),
            latencies: seconds(10_000, 3000),
            rounds: self.rounds.map_or(quick(3, 1) as usize, usize::from),
            messages: self.messages.unwrap_or(20_000),
            deep: self.deep.unwrap_or(quick(1_000_000, 100_000)),
            processes: self.processes.unwrap_or(quick(64, 16) as usize),
            consumers: self.consumers.unwrap_or(1000).max(2),
        }
    }
}

/// One scenario, with words on stderr while it runs.
pub(super) async fn measure(lab: &Lab, name: Name, effort: &Effort) -> Result<Option<Scenario>, Failure> {
    let scenario = name.to_possible_value().map_or("latency".to_owned(), |value| value.get_name().to_owned());
    eprintln!("{scenario}:");
    name.run(lab, effort).await.map_err(|error| failure(error).context(scenario))
}
