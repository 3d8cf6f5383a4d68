//! SIGINT and SIGTERM, one after the other.

use std::io::Result;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, from the moment this is made: none is lost, and neither ends the program by itself any more.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
