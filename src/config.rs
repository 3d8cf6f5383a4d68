//! How a broker uses its database.

use std::{sync::Arc, time::Duration};

use crate::{
    error::{Error, Result},
    message::Message,
    telemetry::{Observer, Propagator},
};

/// How a broker uses its database.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Most pooled connections; the listener and the heartbeat have one more each. Default 10.
    pub connections_max: usize,
    /// How long a caller waits for a free connection. Default 30 s.
    pub connection_wait: Duration,
    /// Largest payload that is published, in bytes of JSON text. Default 1 MiB; the schema refuses more than 64 MiB.
    pub payload_bytes_max: usize,
    /// How long a publish is begun anew while the server certainly did nothing
    /// ([`is_refused`](crate::Error::is_refused)), during a failover, a restart; with a dedup key, while its outcome is
    /// unknown, too. 0: never. Default 1 min.
    pub publish_within: Duration,
    /// How long this process's messages stay its own when it cannot be reached any more. Default 15 s, at least 3 beats.
    pub lease: Duration,
    /// How often the lease is renewed. Default 1 s.
    pub beat: Duration,
    /// How often the listener proves, by a notification to itself, that notifications arrive. Shorter finds a silent
    /// connection sooner and costs a statement each. Default 10 s.
    pub ping: Duration,
    /// How long that notification may take before the listener connects anew. Default 5 s.
    pub ping_within: Duration,
    /// How often answers to requests are looked for without having been rung. Default 1 s.
    pub answers: Duration,
    /// How long a statement may go unanswered before its connection is closed. Nothing is cancelled: what it did is
    /// unknown then. Longer than any statement on a busy server takes. Default 30 s.
    pub statement_within: Duration,
    /// Is told what happens, for metrics; see [`Observer`]. Default: nobody.
    pub observer: Option<Arc<dyn Observer>>,
    /// Carries the context of traces in the headers of messages; see [`Propagator`]. Default: none.
    pub propagator: Option<Arc<dyn Propagator>>,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            connections_max: 10,
            connection_wait: Duration::from_secs(30),
            payload_bytes_max: Message::PAYLOAD_BYTES_MAX,
            publish_within: Duration::from_secs(60),
            lease: Duration::from_secs(15),
            beat: Duration::from_secs(1),
            ping: Duration::from_secs(10),
            ping_within: Duration::from_secs(5),
            answers: Duration::from_secs(1),
            statement_within: Duration::from_secs(30),
            observer: None,
            propagator: None,
        }
    }
}

impl BrokerConfig {
    pub(crate) fn check(&self) -> Result<()> {
        if self.connections_max == 0 {
            return Err(Error::config("connections_max is 0; at least one connection is needed"));
        }
        if self.payload_bytes_max > 64 << 20 {
            return Err(Error::config("payload_bytes_max is over 64 MiB, which the schema refuses"));
        }
        if self.beat.is_zero() || self.lease < self.beat * 3 {
            return Err(Error::config("lease must be at least three times beat, and beat above zero"));
        }
        if [self.ping, self.ping_within, self.answers, self.statement_within].iter().any(Duration::is_zero) {
            return Err(Error::config("ping, ping_within, answers and statement_within must be above zero"));
        }
        Ok(())
    }
}
