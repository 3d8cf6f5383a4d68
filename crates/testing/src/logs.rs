//! What the library says through `tracing`.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Collects the lines of this thread until it is dropped: for tests on a runtime of one thread.
pub struct Logs {
    lines: Arc<Mutex<Vec<String>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Logs {
    pub fn capture() -> Self {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let kept = lines.clone();
        let keep = move |line| kept.lock().expect("no panic holds it").push(line);
        Self { lines, _guard: tracing::subscriber::set_default(Teller(keep)) }
    }

    pub fn has(&self, text: &str) -> bool {
        self.count(text) > 0
    }

    pub fn count(&self, text: &str) -> usize {
        self.lines.lock().expect("no panic holds it").iter().filter(|line| line.contains(text)).count()
    }
}

/// Hands every line of this whole process to `tell`.
pub fn everywhere(tell: impl Fn(String) + Send + Sync + 'static) {
    tracing::subscriber::set_global_default(Teller(tell)).expect("nobody else collects in this process");
}

struct Teller<F>(F);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl<F: Fn(String) + Send + Sync + 'static> Subscriber for Teller<F> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("doorbell") && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        (self.0)(line.0.replace('\n', " "));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
