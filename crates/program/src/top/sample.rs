//! What happened in one measurement, and how things stand at its end.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, SystemTime},
};

use doorbell::{
    Broker, MessageId, Result,
    operate::{AuditEvent, Follower, ProcessRow, TargetState},
};
use tokio::time::Instant;

/// Messages whose time of publishing is remembered until they complete.
const REMEMBERED_MAX: usize = 100_000;

/// From how many events on there may be more at once, and how often that is tried in one measurement.
const MANY: usize = 1000;
const LOOKS_MAX: usize = 20;

/// Measures, again and again.
pub(super) struct Sampler {
    broker: Broker,
    follower: Follower,
    measured: Instant,
    published: HashMap<MessageId, SystemTime>,
    oldest: VecDeque<MessageId>,
    counted: BTreeMap<String, Counts>,
    latencies: Vec<Duration>,
}

/// What happened to the messages of one target, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) published: u64,
    pub(super) completed: u64,
    pub(super) errored: u64,
    pub(super) failed: u64,
}

/// One measurement.
#[derive(Debug)]
pub(super) struct Sample {
    /// How long it took.
    pub(super) took: Duration,
    /// By target; those to which nothing happened are left out.
    pub(super) counts: BTreeMap<String, Counts>,
    /// From publishing to completion; sorted.
    pub(super) latencies: Vec<Duration>,
    pub(super) targets: Vec<TargetState>,
    pub(super) processes: Vec<ProcessRow>,
}

impl Sampler {
    pub(super) async fn start(broker: Broker) -> Result<Self> {
        let mut follower = broker.operator().follow(None);
        follower.events().await?;
        Ok(Self {
            broker,
            follower,
            measured: Instant::now(),
            published: HashMap::new(),
            oldest: VecDeque::new(),
            counted: BTreeMap::new(),
            latencies: Vec::new(),
        })
    }

    /// What happened since the last sample. Cancelled, it loses nothing that the next one does not have.
    pub(super) async fn sample(&mut self) -> Result<Sample> {
        for _ in 0..LOOKS_MAX {
            let events = self.follower.events().await?;
            events.iter().for_each(|event| self.count(event));
            if events.len() < MANY {
                break;
            }
        }
        let targets = self.broker.operator().targets().await?;
        let processes = self.broker.operator().processes().await?;
        let now = Instant::now();
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        let took = now.duration_since(std::mem::replace(&mut self.measured, now));
        Ok(Sample { took, counts: std::mem::take(&mut self.counted), latencies, targets, processes })
    }

    fn count(&mut self, event: &AuditEvent) {
        let Some(target) = &event.target else { return };
        let counts = match self.counted.get_mut(target) {
            Some(counts) => counts,
            None => self.counted.entry(target.clone()).or_default(),
        };
        match (event.action.as_str(), event.id) {
            ("published", Some(id)) => {
                counts.published += 1;
                self.published.insert(id, event.at);
                self.oldest.push_back(id);
                if self.oldest.len() > REMEMBERED_MAX {
                    self.oldest.pop_front().map(|id| self.published.remove(&id));
                }
            }
            ("completed", Some(id)) => {
                counts.completed += 1;
                let latency = self.published.remove(&id).and_then(|at| event.at.duration_since(at).ok());
                self.latencies.extend(latency);
            }
            ("errored", _) => counts.errored += 1,
            ("failed", _) => counts.failed += 1,
            _ => {}
        }
    }
}

impl Sample {
    /// What happened to all targets together.
    pub(super) fn total(&self) -> Counts {
        self.counts.values().fold(Counts::default(), |all, one| Counts {
            published: all.published + one.published,
            completed: all.completed + one.completed,
            errored: all.errored + one.errored,
            failed: all.failed + one.failed,
        })
    }

    /// What happened to one target.
    pub(super) fn of(&self, target: &str) -> Counts {
        self.counts.get(target).copied().unwrap_or_default()
    }

    /// So many in so long, per second.
    pub(super) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.took.as_secs_f64().max(0.001)
    }

    /// The latency that this share of the messages did not exceed; `None`: none completed.
    pub(super) fn latency(&self, share: f64) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get((share * last as f64).round() as usize).copied()
    }
}
