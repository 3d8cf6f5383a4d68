//! `--metrics`: how a command that keeps running can be watched, over HTTP.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use clap::Args;
use doorbell::{
    Broker, BrokerConfig,
    observe::{Metrics, Observer, Pulse},
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use crate::{
    database,
    exit::{Exit, Failure},
};

/// Probes give up after a second by default; most answer much faster.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// A round that meets a silent database takes up to two deadlines of half a minute.
const ROUND_MAX: Duration = Duration::from_secs(90);

/// Where to be watched.
#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// Serve /metrics (Prometheus), /healthz and /readyz here: an address with a port, or a port of this machine alone
    #[arg(long, value_name = "ADDR", value_parser = address)]
    metrics: Option<SocketAddr>,
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| "give an address and a port, as in 0.0.0.0:9187, or a port alone".to_owned())
}

/// Who is watched, and what tells that it works.
#[derive(Clone, Debug)]
pub(crate) enum Watched {
    Consumer { target: String, pulse: Pulse },
    Rounds(Rounds),
}

/// When the last round of a command that works in rounds was over.
#[derive(Clone, Debug)]
pub(crate) struct Rounds {
    every: Duration,
    last: Arc<Mutex<Instant>>,
}

impl Rounds {
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, last: Arc::new(Mutex::new(Instant::now())) }
    }

    pub(crate) fn over(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn are_moving(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < self.every + ROUND_MAX
    }
}

/// What is to be watched, and the socket on which that is served, where somebody asked for it.
pub(crate) struct Watch {
    listener: Option<TcpListener>,
    metrics: Arc<Metrics>,
}

impl WatchArgs {
    /// Takes the address before anything else begins: one that cannot be had is an error of usage.
    pub(crate) async fn prepare(&self) -> Result<Watch, Failure> {
        let listener = match self.metrics {
            None => None,
            Some(address) => {
                let unusable = |error| Failure::new(Exit::Usage, format!("--metrics {address}: {error}"));
                Some(TcpListener::bind(address).await.map_err(unusable)?)
            }
        };
        Ok(Watch { listener, metrics: Arc::default() })
    }
}

impl Watch {
    /// How a broker is to be configured for it.
    pub(crate) fn config(&self) -> BrokerConfig {
        let observer = self.listener.as_ref().map(|_| self.metrics.clone() as Arc<dyn Observer>);
        BrokerConfig { observer, ..database::config() }
    }

    /// Serves until the result is dropped.
    pub(crate) fn serve(self, broker: Broker, watched: Watched) -> JoinSet<()> {
        let mut serving = JoinSet::new();
        let Some(listener) = self.listener else { return serving };
        if let Ok(address) = listener.local_addr() {
            info!(%address, "serving /metrics, /healthz and /readyz");
        }
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .with_state(Arc::new(Answers { broker, metrics: self.metrics, watched, was_ready: AtomicBool::new(true) }))
            .into_make_service_with_connect_info::<SocketAddr>();
        serving.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                warn!(%error, "metrics and health are not served any more");
            }
        });
        serving
    }
}

struct Answers {
    broker: Broker,
    metrics: Arc<Metrics>,
    watched: Watched,
    /// What the last probe was told: the log has each change once.
    was_ready: AtomicBool,
}

async fn metrics(State(answers): State<Arc<Answers>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], answers.metrics.scrape(&answers.broker).await)
}

/// Whether a restart would help.
async fn healthz(State(answers): State<Arc<Answers>>) -> impl IntoResponse {
    let moving = match &answers.watched {
        Watched::Consumer { pulse, .. } => pulse.is_moving(),
        Watched::Rounds(rounds) => rounds.are_moving(),
    };
    said(match moving {
        false => Err("the loop does not move; restart this process".to_owned()),
        true if answers.beats_in_vain().await => {
            Err("the database answers, and the heartbeat has not got through for \
             a whole lease; restart this process"
                .to_owned())
        }
        true => Ok(()),
    })
}

/// Whether it can do its work now. Why it cannot names hosts and roles: that is for the log and for this machine.
async fn readyz(
    State(answers): State<Arc<Answers>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> (StatusCode, String) {
    let answer = match timeout(READY_WITHIN, answers.ready()).await {
        Ok(ready) => ready,
        Err(_) => Err(format!("the database did not answer within {} s", READY_WITHIN.as_secs())),
    };
    if answers.was_ready.swap(answer.is_ok(), Ordering::Relaxed) != answer.is_ok() {
        match &answer {
            Ok(()) => info!("ready again"),
            Err(reason) => info!(reason, "not ready"),
        }
    }
    said(answer.map_err(|reason| for_whom(peer.ip(), reason)))
}

fn for_whom(peer: IpAddr, reason: String) -> String {
    if peer.to_canonical().is_loopback() { reason } else { "not ready".to_owned() }
}

fn said(answer: Result<(), String>) -> (StatusCode, String) {
    match answer {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

impl Answers {
    /// Whether the heartbeat does not get through although the database can be used: an outage, however long, is no reason
    /// to restart.
    async fn beats_in_vain(&self) -> bool {
        let beats = match &self.watched {
            Watched::Consumer { pulse, .. } => pulse.is_draining() || self.broker.is_beating(),
            Watched::Rounds(_) => true,
        };
        !beats && matches!(timeout(READY_WITHIN, self.broker.ping()).await, Ok(Ok(())))
    }

    async fn ready(&self) -> Result<(), String> {
        let failed = |error: doorbell::Error| Failure::from(error).context("the database cannot be used").to_string();
        self.broker.ping().await.map_err(failed)?;
        let Watched::Consumer { target, pulse } = &self.watched else { return Ok(()) };
        if pulse.is_draining() {
            return Err("draining".to_owned());
        }
        if !self.broker.is_beating() {
            return Err("the heartbeat does not get through, so this process will be taken for dead".to_owned());
        }
        if self.broker.is_listening() || self.broker.bell_is_off(target).await.map_err(failed)? {
            return Ok(());
        }
        Err("bells do not arrive, so this consumer sweeps: the listener is down, or a pooler is in the way; \
             doorbell doctor says more. Where sweeping is meant, switch the target's bell off"
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_not_told_why() {
        let told = |peer: &str| for_whom(peer.parse().unwrap(), "role billing may not log in".to_owned());
        for here in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(told(here), "role billing may not log in", "{here}");
        }
        for elsewhere in ["10.0.0.7", "2001:db8::1", "::ffff:10.0.0.7", "0.0.0.0"] {
            assert_eq!(told(elsewhere), "not ready", "{elsewhere}");
        }
    }
}
