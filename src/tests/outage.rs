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
