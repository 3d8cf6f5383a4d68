//! Whether a consumer's loop still turns, for liveness checks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The loop turns with each event, and once a second without; what keeps it from that for so long keeps it for ever.
const STALLED_AFTER: Duration = Duration::from_secs(15);

/// A consumer's pulse; see [`Consumer::pulse`](crate::Consumer::pulse). Cheap to clone, and outlives its consumer.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Beats>);

#[derive(Debug)]
struct Beats {
    since: Instant,
    last_ms: AtomicU64,
    ending: AtomicBool,
    ended: AtomicBool,
}

/// See [`Pulse::ends_when_dropped`].
pub(super) struct Ends(Pulse);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.0.ended.store(true, Ordering::Relaxed);
    }
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self(Arc::new(Beats {
            since: Instant::now(),
            last_ms: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }))
    }

    pub(super) fn beat(&self) {
        self.0.last_ms.store(self.0.since.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// From now on it drains, which has an end of its own.
    pub(super) fn ending(&self) {
        self.0.ending.store(true, Ordering::Relaxed);
    }

    /// Says that it has ended, however it ends.
    pub(super) fn ends_when_dropped(self) -> Ends {
        Ends(self)
    }

    /// Whether the consumer's loop turns, or drains. False once it has ended, and when it was not seen to turn for
    /// fifteen seconds: a defect, or handlers that block every thread of the runtime. Restart the process then.
    pub fn is_moving(&self) -> bool {
        let last = Duration::from_millis(self.0.last_ms.load(Ordering::Relaxed));
        !self.0.ended.load(Ordering::Relaxed)
            && (self.is_draining() || self.0.since.elapsed().saturating_sub(last) < STALLED_AFTER)
    }

    /// Whether it was asked to stop: it claims nothing any more.
    pub fn is_draining(&self) -> bool {
        self.0.ending.load(Ordering::Relaxed)
    }
}
