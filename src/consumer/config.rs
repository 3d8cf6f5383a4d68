//! How a consumer takes and runs messages.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    handler::UnknownType,
    message::check_name,
};

/// How a consumer takes and runs messages.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Handlers that run at the same time. Default 8; 0 is refused.
    pub concurrency: usize,
    /// Messages claimed ahead of free handlers, so that one that finishes starts the next without a round trip. They
    /// cannot be handled by another process meanwhile: 0 is right for handlers that take seconds. `None` (the default):
    /// 20 ms of work by the average handler, at least as many as `concurrency` and at most 1,000; 0 when handlers take
    /// 50 ms and more on average. What was claimed ahead is given back when they become slow.
    pub prefetch: Option<usize>,
    /// How often to look without having been rung, spread by a tenth. Finds what no notification announced. Default 5
    /// s; `None` never sweeps, for tests.
    pub sweep: Option<Duration>,
    /// A handler that runs longer is dropped and its message failed for now. Default 60 s; `None`: no limit.
    pub handler_timeout: Option<Duration>,
    /// How long shutdown waits for running handlers before it drops them and gives their messages back. Default 30 s.
    pub drain_timeout: Duration,
    /// Only these record types are claimed; others wait for another consumer. `None` (the default): all.
    pub record_types: Option<Vec<String>>,
    /// What happens to a record type without a handler. Default: failed with a reason.
    pub unknown_type: UnknownType,
    /// How long a transaction may hold messages whose handlers are short. Such messages are not leased but stay locked by
    /// the transaction that completes them, a batch at a time, which is up to twice as fast, and a process that dies gives
    /// them back at once. Transactional handlers of a batch work in that transaction, one after the other; plain ones run
    /// side by side. What does not end with [`Outcome::Done`](crate::Outcome::Done) is leased then, settled for itself,
    /// and its effects alone are rolled back. When the time has come a plain handler goes on with a lease; a transactional
    /// one is dropped, and run again in a transaction of its own; messages whose handlers have not begun are free again.
    /// The transaction holds back vacuum.
    ///
    /// Short are plain handlers that take a millisecond at most on average, and, in consumers that have transactional
    /// ones, those that take a tenth of this. Other messages are leased, and so are all of a target with `max_in_flight`,
    /// an open breaker or a consumer that died within the last ten minutes, of a process in its first three seconds, and
    /// while half of its connections hold messages. From 10 ms to 60 s, default 100 ms; `None`: leases always, and each
    /// transactional handler gets a transaction of its own.
    pub hold: Option<Duration>,
    /// Most messages this consumer takes in its life; when they are handled it idles until it is shut down. One that
    /// fails and comes back counts again. Default `None`: no limit.
    pub messages_max: Option<usize>,
    /// Bounds the stored payload bytes of one claim. Default 16 MiB; a larger single message is still claimed.
    pub claim_bytes_max: usize,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            concurrency: 8,
            prefetch: None,
            sweep: Some(Duration::from_secs(5)),
            handler_timeout: Some(Duration::from_secs(60)),
            drain_timeout: Duration::from_secs(30),
            record_types: None,
            unknown_type: UnknownType::Reject,
            hold: Some(Duration::from_millis(100)),
            messages_max: None,
            claim_bytes_max: 16 << 20,
        }
    }
}

impl ConsumerConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.concurrency == 0 {
            return Err(Error::config("concurrency is 0; at least one handler must be able to run"));
        }
        let sane = |cap: &Duration| (Duration::from_millis(10)..=Duration::from_secs(60)).contains(cap);
        if self.hold.is_some_and(|cap| !sane(&cap)) {
            return Err(Error::config("hold is not between 10 ms and 60 s; 100 ms is the default"));
        }
        if self.sweep.is_some_and(|sweep| sweep < Duration::from_millis(10)) {
            return Err(Error::config("sweep is below 10 ms; give None to switch sweeping off"));
        }
        if self.record_types.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::config("record_types is an empty list; give None to accept all"));
        }
        self.record_types.iter().flatten().try_for_each(|name| check_name("record type", name))
    }
}
