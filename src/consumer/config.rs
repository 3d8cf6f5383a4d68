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
    /// How many messages one transaction of transactional handlers may take, one handler after the other; when one of
    /// them does not end with [`Outcome::Done`](crate::Outcome::Done), each is run again in a transaction of its own.
    /// Default 1.
    pub tx_batch: usize,
    /// How long a transaction may hold messages whose plain handlers are short: they take a millisecond at most on
    /// average. Such messages are not leased but stay locked by the transaction that completes them, a batch at a
    /// time, which is up to twice as fast, and a process that dies gives them back at once. A handler that has not ended
    /// by then goes on with a lease, and so does what ends otherwise than with [`Outcome::Done`](crate::Outcome::Done);
    /// handlers of a batch that have not begun are free again. Leases are used anyway by consumers with transactional
    /// handlers (see [`in_transaction`](Self::in_transaction)) and wherever that mode uses them. The transaction holds
    /// back vacuum. Default 100 ms; `None`: leases always.
    pub hold: Option<Duration>,
    /// In-transaction mode: messages with transactional handlers are not leased but stay locked by the transaction that
    /// handles and completes them, up to `tx_batch` at a time, one handler after the other. About twice as fast, and a
    /// process that dies gives them back at once. The value is the longest such a transaction may last: what has not
    /// begun by then goes back, and a handler that is still running is dropped and run again with a lease. A batch in
    /// which a handler does not end with [`Outcome::Done`](crate::Outcome::Done) is rolled back, and its messages are
    /// taken with leases. Targets with `max_in_flight`, an open breaker, or a consumer that died in this mode within
    /// the last ten minutes are consumed with leases, and so does a process in its first three seconds. Right for
    /// handlers of milliseconds; the transaction holds back vacuum. Default `None`: leases.
    pub in_transaction: Option<Duration>,
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
            tx_batch: 1,
            hold: Some(Duration::from_millis(100)),
            in_transaction: None,
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
        if self.tx_batch == 0 {
            return Err(Error::config("tx_batch is 0; a transaction takes at least one message"));
        }
        let sane = |cap: &Duration| (Duration::from_millis(10)..=Duration::from_secs(60)).contains(cap);
        if self.in_transaction.is_some_and(|cap| !sane(&cap)) {
            return Err(Error::config("in_transaction is not between 10 ms and 60 s; 1 s is usual"));
        }
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
