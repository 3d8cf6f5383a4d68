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
    quiet: bool,
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Outage {
    /// `begins` and `ends` are the lines for either change: a warning with the error, and information.
    pub(crate) fn new(begins: &'static str, ends: &'static str) -> Self {
        Self { begins, ends, target: None, quiet: false, base: BASE, cap: CAP, failures: 0 }
    }

    /// For one call, of which there may be thousands at a time and whose caller hears of its end: the lines are for debugging.
    pub(crate) fn of_one_call(begins: &'static str) -> Self {
        Self { quiet: true, ..Self::new(begins, "it worked at last") }
    }

    /// Whose: the lines name it.
    pub(crate) fn for_target(self, target: impl Into<String>) -> Self {
        Self { target: Some(target.into()), ..self }
    }

    /// The first pause, about, and the longest.
    pub(crate) fn pauses(self, base: Duration, cap: Duration) -> Self {
        Self { base, cap, ..self }
    }

    /// It failed; returns how long to wait before trying again.
    pub(crate) fn failed(&mut self, error: &Error) -> Duration {
        let target_app = self.target.as_deref();
        match (self.failures, self.quiet) {
            (0, false) => warn!(target_app, ?error, "{}", self.begins),
            (0, true) => debug!(target_app, ?error, "{}", self.begins),
            _ => {}
        }
        self.failures = self.failures.saturating_add(1);
        backoff::delay(self.base, self.cap, self.failures - 1, rand::random())
    }

    /// It worked.
    pub(crate) fn over(&mut self) {
        let (failures, target_app) = (std::mem::take(&mut self.failures), self.target.as_deref());
        match (failures, self.quiet) {
            (0, _) => {}
            (_, false) => info!(target_app, failures, "{}", self.ends),
            (_, true) => debug!(target_app, failures, "{}", self.ends),
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
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::error::ErrorKind;

    /// Keeps the lines that are said in this thread.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic holds it").write(text)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn said(during: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        let said = tracing_subscriber::fmt().with_writer(lines.clone()).without_time().with_ansi(false).finish();
        tracing::subscriber::with_default(said, during);
        let text = lines.0.lock().expect("no panic holds it").clone();
        String::from_utf8(text).expect("text").lines().map(|line| line.trim().to_owned()).collect()
    }

    fn error() -> Error {
        Error::new(ErrorKind::Connect, "no server")
    }

    #[test]
    fn an_outage_is_said_once_when_it_begins_and_once_when_it_is_over() {
        let lines = said(|| {
            let mut outage = Outage::new("claiming failed", "claiming again").for_target("billing");
            outage.over();
            for _ in 0..2 {
                for _ in 0..5 {
                    outage.failed(&error());
                }
                outage.over();
                outage.over();
            }
        });
        let [begins, ends, begins_anew, ends_anew] = lines.as_slice() else { panic!("{lines:#?}") };
        assert!(begins.starts_with("WARN") && begins.contains("claiming failed"), "{begins}");
        assert!(begins.contains("billing") && begins.contains("no server"), "{begins}");
        assert!(ends.starts_with("INFO") && ends.contains("claiming again") && ends.contains("failures=5"), "{ends}");
        assert_eq!((begins, ends), (begins_anew, ends_anew));
    }

    #[test]
    fn its_pauses_grow_to_the_cap_and_begin_anew_after_the_end() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut outage = Outage::of_one_call("asking again").pauses(base, cap);
        let within = |pause: Duration, most: Duration| assert!((most / 2..=most).contains(&pause), "{pause:?}");
        within(outage.failed(&error()), base);
        within(outage.failed(&error()), base * 2);
        for _ in 0..8 {
            outage.failed(&error());
        }
        within(outage.failed(&error()), cap);
        outage.over();
        within(outage.failed(&error()), base);
    }

    #[tokio::test]
    async fn a_call_is_repeated_until_it_works_or_its_error_is_not_worth_it() {
        let calls = Mutex::new(0);
        let call = async || {
            let mut calls = calls.lock().expect("no panic holds it");
            *calls += 1;
            if *calls < 4 { Err(error()) } else { Ok(*calls) }
        };
        let pause = Duration::from_millis(1);
        let outage = || Outage::of_one_call("asking again").pauses(pause, pause);
        assert_eq!(outage().repeat(|_, failures| failures < 3, call).await.expect("the fourth works"), 4);
        *calls.lock().expect("no panic holds it") = 0;
        assert!(outage().repeat(|_, failures| failures < 2, call).await.is_err(), "the third failed, too");
        *calls.lock().expect("no panic holds it") = 0;
        assert!(outage().repeat(|error, _| !error.is_transient(), call).await.is_err());
        assert_eq!(*calls.lock().expect("no panic holds it"), 1);
    }
}
