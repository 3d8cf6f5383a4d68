//! Trying again until it works: one line when something begins to fail, one when it works again, and growing pauses between.

use std::{future::Future, time::Duration};

use tracing::{debug, info, warn};

use crate::{
    backoff,
    error::{Error, Result},
};

/// Pauses where the caller has none of its own.
const BASE: Duration = Duration::from_millis(50);
const CAP: Duration = Duration::from_secs(2);

/// Whether something fails at the moment. It says so when that changes, and never between.
#[derive(Debug)]
pub(crate) struct Outage {
    begins: &'static str,
    ends: &'static str,
    target: Option<String>,
    extract: Option<String>,
    quiet: bool,
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Outage {
    /// `begins` and `ends` are the lines for either change: a warning with the error, and information.
    pub(crate) fn new(begins: &'static str, ends: &'static str) -> Self {
        Self { begins, ends, target: None, extract: None, quiet: false, base: BASE, cap: CAP, failures: 0 }
    }

    /// For one call, of which there may be thousands at a time and whose caller hears of its end: the lines are for debugging.
    pub(crate) fn of_one_call(begins: &'static str) -> Self {
        Self { quiet: true, ..Self::new(begins, "it worked at last") }
    }

    /// Whose: the lines name it.
    pub(crate) fn for_target(self, target: impl Into<String>) -> Self {
        Self { target: Some(target.into()), ..self }
    }

    /// Which extract's: the lines name it.
    pub(crate) fn for_extract(self, name: impl Into<String>) -> Self {
        Self { extract: Some(name.into()), ..self }
    }

    /// The first pause, about, and the longest.
    pub(crate) fn pauses(self, base: Duration, cap: Duration) -> Self {
        Self { base, cap, ..self }
    }

    /// It failed; returns how long to wait before trying again.
    pub(crate) fn failed(&mut self, error: &Error) -> Duration {
        let (target_app, extract) = (self.target.as_deref(), self.extract.as_deref());
        match (self.failures, self.quiet) {
            (0, false) => warn!(target_app, extract, ?error, "{}", self.begins),
            (0, true) => debug!(target_app, extract, ?error, "{}", self.begins),
            _ => {}
        }
        self.failures = self.failures.saturating_add(1);
        backoff::delay(self.base, self.cap, self.failures - 1, rand::random())
    }

    /// It worked.
    pub(crate) fn over(&mut self) {
        let (target_app, extract) = (self.target.as_deref(), self.extract.as_deref());
        match (std::mem::take(&mut self.failures), self.quiet) {
            (0, _) => {}
            (failures, false) => info!(target_app, extract, failures, "{}", self.ends),
            (failures, true) => debug!(target_app, extract, failures, "{}", self.ends),
        }
    }

    /// Failures in a row; 0: it works.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Repeats a call until it works, or fails with an error after so many others that `again` does not want it repeated.
    pub(crate) async fn repeat<T, F: Future<Output = Result<T>>>(
        mut self,
        again: impl Fn(&Error, u32) -> bool,
        mut call: impl FnMut() -> F,
    ) -> Result<T> {
        loop {
            match call().await {
                Err(error) if again(&error, self.failures) => tokio::time::sleep(self.failed(&error)).await,
                result => {
                    if result.is_ok() {
                        self.over();
                    }
                    return result;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/outage.rs"]
mod tests;
