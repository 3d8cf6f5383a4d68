//! What the library tells about its work: numbers to an [`Observer`], spans to `tracing`, and the trace context that
//! travels in the headers of messages. All of it is free while nobody asked for it.
//!
//! Each wrapper here runs one step of a message (publish, receive, process, settle) and tells of it once it is over; the
//! steps themselves know nothing of telemetry.

mod observer;
mod propagator;
mod spans;

mod names;

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::{
    error::Result,
    message::{Delivery, Found, Message, MessageId},
    outcome::Outcome,
};

pub use observer::{Event, Observer};
pub use propagator::Propagator;

/// Whom to tell. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Telemetry {
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) propagator: Option<Arc<dyn Propagator>>,
}

impl Telemetry {
    /// Tells the observer, if there is one.
    pub(crate) fn tell(&self, event: Event<'_>) {
        if let Some(observer) = &self.observer {
            observer.observe(&event);
        }
    }

    /// The time, where somebody wants to know how long things take.
    fn now(&self) -> Option<Instant> {
        self.observer.is_some().then(Instant::now)
    }

    /// Begins to publish messages, in one call.
    pub(crate) fn publishing<'a>(&'a self, messages: &'a [Message]) -> Publishing<'a> {
        Publishing { telemetry: self, messages, span: spans::publish(messages), started: self.now() }
    }

    /// Runs one claim. `count`: how many messages it brought; `None`: it was no look.
    pub(crate) async fn claiming<T>(
        &self,
        target: &str,
        found: Found,
        claim: impl Future<Output = Result<T>>,
        count: impl FnOnce(&T) -> Option<usize>,
    ) -> Result<T> {
        let (span, started) = (spans::receive(target, found), self.now());
        let claimed = claim.instrument(span.clone()).await;
        let messages = claimed.as_ref().map_or(Some(0), count);
        spans::ended(&span, messages.unwrap_or(0), claimed.as_ref().err());
        if let (Some(started), Some(messages)) = (started, messages) {
            let (took, error) = (started.elapsed(), claimed.as_ref().err());
            self.tell(Event::Claimed { target, found, messages, took, error });
        }
        claimed
    }

    /// Begins to run the handler of one delivery. `record_type`: as it may be used for a label.
    pub(crate) fn processing<'a>(
        &'a self,
        target: &'a str,
        record_type: &'a str,
        delivery: &Delivery,
    ) -> Processing<'a> {
        let span = spans::process(delivery);
        if let Some(propagator) = &self.propagator {
            propagator.link(&span, &delivery.headers);
        }
        Processing { telemetry: self, target, record_type, first_after: self.first_after(delivery), span }
    }

    /// How old a message is that is handled for the first time, where somebody wants to know.
    fn first_after(&self, delivery: &Delivery) -> Option<Duration> {
        let measured = self.observer.is_some() && delivery.attempt == 1 && !delivery.alone;
        measured.then(|| delivery.age + delivery.received.elapsed())
    }

    /// Begins to run the handler of several deliveries. `label`: their record types as they may be used for labels.
    pub(crate) fn processing_together<'a>(
        &'a self,
        target: &'a str,
        deliveries: &[Delivery],
        label: impl Fn(&Delivery) -> &'a str,
    ) -> ProcessingTogether<'a> {
        let span = spans::process_together(target, deliveries);
        if let Some(propagator) = &self.propagator {
            deliveries.iter().for_each(|delivery| propagator.link(&span, &delivery.headers));
        }
        let messages = match self.observer.is_some() {
            true => deliveries.iter().map(|delivery| (label(delivery), self.first_after(delivery))).collect(),
            false => Vec::new(),
        };
        ProcessingTogether { telemetry: self, target, messages, span }
    }

    /// Runs one settle of `messages`, which says how many of them had lost their lease.
    pub(crate) async fn settling(
        &self,
        target: &str,
        messages: usize,
        settle: impl Future<Output = Result<usize>>,
    ) -> Result<usize> {
        let (span, started) = (spans::settle(target), self.now());
        let lost = settle.instrument(span.clone()).await;
        let settled = lost.as_ref().map_or(0, |lost| messages.saturating_sub(*lost));
        spans::ended(&span, settled, lost.as_ref().err());
        if let Some(started) = started {
            let (took, error) = (started.elapsed(), lost.as_ref().err());
            self.tell(Event::Settled { target, messages: settled, took, error });
        }
        if let Ok(lost) = lost {
            self.lease_lost(target, lost);
        }
        lost
    }

    /// So many messages of a target turned out to belong to somebody else.
    pub(crate) fn lease_lost(&self, target: &str, messages: usize) {
        if messages > 0 {
            self.tell(Event::LeaseLost { target, messages });
        }
    }
}

/// A publish under way.
pub(crate) struct Publishing<'a> {
    telemetry: &'a Telemetry,
    messages: &'a [Message],
    span: Span,
    started: Option<Instant>,
}

impl<'a> Publishing<'a> {
    /// The messages as they are to be stored: with the context of this publish in their headers, or of what it is part of
    /// where its own span is filtered out; except where the caller gave one. Copies them, if there is a propagator.
    pub(crate) fn traced(&self) -> Cow<'a, [Message]> {
        let Some(propagator) = &self.telemetry.propagator else { return Cow::Borrowed(self.messages) };
        let span = if self.span.is_disabled() { &Span::current() } else { &self.span };
        let mut messages = self.messages.to_vec();
        for message in messages.iter_mut().filter(|message| !message.headers.contains_key(names::TRACEPARENT)) {
            propagator.inject(span, &mut message.headers);
        }
        Cow::Owned(messages)
    }

    /// Runs it. `id`: that of the message, where it is one.
    pub(crate) async fn run<T>(
        self,
        publish: impl Future<Output = Result<T>>,
        id: impl FnOnce(&T) -> Option<MessageId>,
    ) -> Result<T> {
        let Self { telemetry, messages, span, started } = self;
        let published = publish.instrument(span.clone()).await;
        let error = published.as_ref().err();
        spans::ended(&span, if error.is_none() { messages.len() } else { 0 }, error);
        if let Some(id) = published.as_ref().ok().and_then(id) {
            span.record("messaging.message.id", id);
        }
        if let Some(took) = started.map(|started| started.elapsed()) {
            for (target, count) in by_target(messages) {
                let messages = if error.is_none() { count } else { 0 };
                telemetry.tell(Event::Published { target, messages, took, error });
            }
        }
        published
    }
}

/// How many messages go to each target. A batch has few targets.
fn by_target(messages: &[Message]) -> Vec<(&str, usize)> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for message in messages {
        match counts.iter_mut().find(|(target, _)| *target == message.target) {
            Some((_, count)) => *count += 1,
            None => counts.push((&message.target, 1)),
        }
    }
    counts
}

/// A handler about to run.
pub(crate) struct Processing<'a> {
    telemetry: &'a Telemetry,
    target: &'a str,
    record_type: &'a str,
    /// How old the message is, on its first attempt.
    first_after: Option<Duration>,
    span: Span,
}

impl Processing<'_> {
    /// Runs it. Dropped before its end (the lease was lost, the consumer stops), it tells nothing.
    pub(crate) async fn run(self, handling: impl Future<Output = Outcome>) -> Outcome {
        let Self { telemetry, target, record_type, first_after, span } = self;
        let started = telemetry.now();
        if let Some(age) = first_after {
            telemetry.tell(Event::Started { target, record_type, age });
        }
        let outcome = handling.instrument(span.clone()).await;
        spans::handled(&span, &outcome);
        if let Some(started) = started {
            telemetry.tell(Event::Processed { target, record_type, outcome: &outcome, took: started.elapsed() });
        }
        outcome
    }
}

/// A handler of several messages about to run.
pub(crate) struct ProcessingTogether<'a> {
    telemetry: &'a Telemetry,
    target: &'a str,
    /// Where somebody is told: the record type of each, and how old it is, on its first attempt.
    messages: Vec<(&'a str, Option<Duration>)>,
    span: Span,
}

impl ProcessingTogether<'_> {
    /// Runs it to the outcome of each message. One that fails as a whole ends no run: each of its messages has one of its own.
    pub(crate) async fn run<E>(
        self,
        handling: impl Future<Output = std::result::Result<Vec<Outcome>, E>>,
    ) -> std::result::Result<Vec<Outcome>, E> {
        let Self { telemetry, target, messages, span } = self;
        let started = telemetry.now();
        for (record_type, age) in &messages {
            if let Some(age) = *age {
                telemetry.tell(Event::Started { target, record_type, age });
            }
        }
        let outcomes = handling.instrument(span.clone()).await;
        spans::handled_together(&span, outcomes.as_deref().ok());
        if let Some(started) = started {
            let (messages, failed) = (messages.len(), outcomes.is_err());
            telemetry.tell(Event::Batch { target, messages, failed, took: started.elapsed() });
        }
        if let (Some(started), Ok(outcomes)) = (started, &outcomes) {
            let took = started.elapsed() / u32::try_from(outcomes.len().max(1)).unwrap_or(u32::MAX);
            for ((record_type, _), outcome) in messages.iter().zip(outcomes) {
                telemetry.tell(Event::Processed { target, record_type, outcome, took });
            }
        }
        outcomes
    }
}
