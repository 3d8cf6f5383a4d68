//! What the database says about the whole fleet, for scrapes: the same from every process.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::time::{Instant, timeout};

use super::{
    labels::{Action, Breaker, Depth, Target},
    names::{
        ACTIONS, BLOCKED_KEYS, BREAKER_STATE, DATABASE_UP, MESSAGES, OLDEST_AGE, PROCESSES, SCHEDULE_LATENESS,
        SET_ASIDE, WAITING_REQUESTS,
    },
};
use crate::{
    error::{Error, ErrorKind, Result},
    operate::Operator,
    outage::Outage,
    rows::{BreakerRow, ProcessRow, TargetStats},
};

/// Several scrapers, or one that is impatient, cost the database one look.
const KEPT: Duration = Duration::from_secs(3);
/// Less than the ten seconds after which Prometheus gives up.
const WITHIN: Duration = Duration::from_secs(2);
const STATES: [&str; 3] = ["closed", "open", "half_open"];

#[derive(Debug)]
pub(super) struct Fleet {
    messages: Family<Depth, Gauge<i64, AtomicI64>>,
    oldest_age: Family<Target, Gauge<f64, AtomicU64>>,
    set_aside: Family<Target, Gauge<i64, AtomicI64>>,
    blocked_keys: Family<Target, Gauge<i64, AtomicI64>>,
    waiting_requests: Family<Target, Gauge<i64, AtomicI64>>,
    lateness: Family<Target, Gauge<f64, AtomicU64>>,
    processes: Family<Target, Gauge<i64, AtomicI64>>,
    breakers: Family<Breaker, Gauge<i64, AtomicI64>>,
    actions: Family<Action, Counter>,
    database_up: Gauge<i64, AtomicI64>,
    read_at: Option<Instant>,
    outage: Outage,
}

impl Fleet {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let fleet = Self {
            messages: Family::default(),
            oldest_age: Family::default(),
            set_aside: Family::default(),
            blocked_keys: Family::default(),
            waiting_requests: Family::default(),
            lateness: Family::default(),
            processes: Family::default(),
            breakers: Family::default(),
            actions: Family::default(),
            database_up: Gauge::default(),
            read_at: None,
            outage: Outage::new(
                "the counts for metrics cannot be read; trying again at each scrape",
                "the counts for metrics can be read again",
            ),
        };
        registry.register(MESSAGES, "Messages in data_staging, by status", fleet.messages.clone());
        registry.register(OLDEST_AGE, "Age of the oldest pending message; 0 when none is", fleet.oldest_age.clone());
        registry.register(SET_ASIDE, "Messages that the database refuses to change", fleet.set_aside.clone());
        registry.register(BLOCKED_KEYS, "Ordering keys that wait for somebody", fleet.blocked_keys.clone());
        registry.register(WAITING_REQUESTS, "Requests that wait for an answer", fleet.waiting_requests.clone());
        registry.register(SCHEDULE_LATENESS, "How late the latest schedule is", fleet.lateness.clone());
        registry.register(PROCESSES, "Processes with a live lease that consume", fleet.processes.clone());
        registry.register(BREAKER_STATE, "1 for the state that a breaker is in", fleet.breakers.clone());
        registry.register(ACTIONS, "What happened to messages that no process counts", fleet.actions.clone());
        registry.register(DATABASE_UP, "Whether the database answered the last scrape", fleet.database_up.clone());
        fleet
    }

    /// Reads it all anew, unless that was done just now.
    pub(super) async fn refresh(&mut self, operator: &Operator) {
        if self.read_at.is_some_and(|read_at| read_at.elapsed() < KEPT) {
            return;
        }
        let read = timeout(WITHIN, read(operator)).await;
        let read = read.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "the database did not answer in time")));
        self.read_at = Some(Instant::now());
        // Numbers of before would look like a queue at rest.
        self.messages.clear();
        self.oldest_age.clear();
        self.set_aside.clear();
        self.blocked_keys.clear();
        self.waiting_requests.clear();
        self.lateness.clear();
        self.processes.clear();
        self.breakers.clear();
        self.actions.clear();
        // A role that may not look was answered.
        let answered = read.as_ref().err().is_none_or(|error| error.sqlstate() == Some("42501"));
        self.database_up.set(i64::from(answered));
        match read {
            Ok((stats, set_aside, blocked_keys, waiting_requests, lateness, actions, breakers, processes)) => {
                self.outage.over();
                self.set(&stats, &breakers, &processes);
                for (target, count) in set_aside {
                    self.set_aside.get_or_create(&Target { target: target.into() }).set(count);
                }
                for (target, count) in blocked_keys {
                    self.blocked_keys.get_or_create(&Target { target: target.into() }).set(count);
                }
                for (target, action, messages) in actions {
                    let labels = Action { target: target.into(), action };
                    self.actions.get_or_create(&labels).inc_by(messages.unsigned_abs());
                }
                for (target, count) in waiting_requests {
                    self.waiting_requests.get_or_create(&Target { target: target.into() }).set(count);
                }
                for (target, seconds) in lateness {
                    self.lateness.get_or_create(&Target { target: target.into() }).set(seconds);
                }
            }
            Err(error) => {
                // Not waited for: the next scrape comes by itself.
                self.outage.failed(&error);
            }
        }
    }

    fn set(&self, stats: &[TargetStats], breakers: &[BreakerRow], processes: &[ProcessRow]) {
        for stats in stats {
            let target: Arc<str> = stats.target.as_str().into();
            let counts = [
                ("pending", stats.pending),
                ("scheduled", stats.scheduled),
                ("processing", stats.processing),
                ("completed", stats.completed),
                ("failed", stats.failed),
                ("cancelled", stats.cancelled),
            ];
            for (status, count) in counts {
                self.messages.get_or_create(&Depth { target: target.clone(), status }).set(count);
            }
            self.set_aside.get_or_create(&Target { target: target.clone() }).set(0);
            self.blocked_keys.get_or_create(&Target { target: target.clone() }).set(0);
            self.waiting_requests.get_or_create(&Target { target: target.clone() }).set(0);
            self.oldest_age.get_or_create(&Target { target }).set(stats.oldest_age_seconds.unwrap_or(0.0));
        }
        for breaker in breakers {
            for state in STATES {
                let labels = Breaker { breaker: breaker.key.clone(), state };
                self.breakers.get_or_create(&labels).set(i64::from(breaker.state == state));
            }
        }
        let mut live: BTreeMap<String, i64> = stats.iter().map(|stats| (stats.target.clone(), 0)).collect();
        for process in processes.iter().filter(|process| process.alive) {
            for target in process.target_names() {
                *live.entry(target).or_default() += 1;
            }
        }
        for (target, count) in live {
            self.processes.get_or_create(&Target { target: target.into() }).set(count);
        }
    }
}

/// Of targets.
type Counts = Vec<(String, i64)>;
/// Of targets and actions.
type Actions = Vec<(String, String, i64)>;

/// The counts are of messages set aside, of blocked keys, and of requests that wait; the seconds are by how much schedules are
/// late.
type Read = (Vec<TargetStats>, Counts, Counts, Counts, Vec<(String, f64)>, Actions, Vec<BreakerRow>, Vec<ProcessRow>);

async fn read(operator: &Operator) -> Result<Read> {
    let (set_aside, blocked_keys) = (operator.set_aside().await?, operator.count_blocked_keys().await?);
    let (breakers, processes) = (operator.breakers().await?, operator.processes().await?);
    let waiting_requests = operator.count_waiting_requests().await?;
    let lateness = operator.lateness_of_schedules().await?;
    let actions = operator.uncounted_actions().await?;
    Ok((operator.stats().await?, set_aside, blocked_keys, waiting_requests, lateness, actions, breakers, processes))
}
