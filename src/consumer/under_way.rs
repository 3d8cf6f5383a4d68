//! The tasks of one consumer that are under way.
//!
//! Its loop polls them beside everything else and starts, of most kinds, one at a time. What has begun here ends here:
//! the drain goes on with the same tasks.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    claiming::Claimed,
    held_batch::{HeldBatch, HeldLook},
    outbox::SETTLE_MAX,
    running::Handled,
};
use crate::{error::Result, process::Parked};

/// What there is one of at a time, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Settle,
    Claim,
    Park,
    Suspects,
    Report,
    Keep,
    Sweep,
    Opening,
}

const KINDS: usize = Kind::Opening as usize + 1;

/// What has come to its end.
pub(super) enum Ended {
    /// Tasks that ran handlers.
    Handled(Vec<Handled>),
    /// What was to be settled. An error: the role may not.
    Settled(Result<()>),
    Claimed(Claimed),
    /// Not ended: a batch has said what it holds.
    HeldLook(Box<HeldLook>),
    Held(HeldBatch),
    Latched(Option<Parked>),
    Suspects,
    Reported,
    Kept,
    /// Whether there is something to look for.
    Swept(bool),
    /// A gate lets messages through that did not.
    Opened,
}

pub(super) struct UnderWay {
    one_of_each: [Option<BoxFuture<'static, Ended>>; KINDS],
    held: FuturesUnordered<Batch>,
    // In boxes, because a channel has room for 32 from the beginning: 7 kB, of a thousand consumers that wait.
    tell: mpsc::UnboundedSender<Box<HeldLook>>,
    looks: mpsc::UnboundedReceiver<Box<HeldLook>>,
    /// Aborted when dropped.
    handlers: JoinSet<()>,
    handled: mpsc::UnboundedSender<Box<Handled>>,
    ended_handlers: mpsc::UnboundedReceiver<Box<Handled>>,
}

/// A batch that is held.
struct Batch {
    began: Instant,
    ended: BoxFuture<'static, HeldBatch>,
}

impl Future for Batch {
    type Output = HeldBatch;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<HeldBatch> {
        self.ended.poll_unpin(context)
    }
}

impl UnderWay {
    pub(super) fn new() -> Self {
        let (tell, looks) = mpsc::unbounded_channel();
        let (handled, ended_handlers) = mpsc::unbounded_channel();
        Self {
            one_of_each: Default::default(),
            held: FuturesUnordered::new(),
            tell,
            looks,
            handlers: JoinSet::new(),
            handled,
            ended_handlers,
        }
    }

    /// Begins the only one of its kind; one that is under way is dropped.
    pub(super) fn begin(&mut self, kind: Kind, task: impl Future<Output = Ended> + Send + 'static) {
        self.one_of_each[kind as usize] = Some(task.boxed());
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.one_of_each[kind as usize].is_some()
    }

    /// Drops it where it is.
    pub(super) fn drop_one(&mut self, kind: Kind) {
        self.one_of_each[kind as usize] = None;
    }

    /// Begins a batch, which tells of its look. It runs beside the loop, whatever a handler does to its thread. `or`: how
    /// it has ended if it panics.
    pub(super) fn begin_held<F>(&mut self, or: HeldBatch, batch: impl FnOnce(mpsc::UnboundedSender<Box<HeldLook>>) -> F)
    where
        F: Future<Output = HeldBatch> + Send + 'static,
    {
        // Aborted when dropped.
        let mut task = JoinSet::new();
        task.spawn(batch(self.tell.clone()));
        let ended = async move { task.join_next().await.and_then(|ended| ended.ok()).unwrap_or(or) };
        self.held.push(Batch { began: Instant::now(), ended: ended.boxed() });
    }

    /// How many batches are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// How long the oldest of them has been under way.
    pub(super) fn held_for(&self) -> Option<Duration> {
        self.held.iter().map(|batch| batch.began.elapsed()).max()
    }

    /// Begins a task that runs a handler and tells of its end. It runs beside the loop, whatever a handler does to its
    /// thread.
    pub(super) fn begin_handler<F>(
        &mut self,
        handle: impl FnOnce(mpsc::UnboundedSender<Box<Handled>>) -> F,
    ) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.handlers.spawn(handle(self.handled.clone()))
    }

    /// Forgets tasks of handlers that have ended, or were aborted.
    pub(super) fn reap(&mut self) {
        while self.handlers.try_join_next().is_some() {}
    }

    /// What ends next; waits for ever while nothing is under way. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Ended {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        let mut handled = Vec::new();
        if self.ended_handlers.poll_recv_many(context, &mut handled, SETTLE_MAX).is_ready() {
            self.reap();
            return Poll::Ready(Ended::Handled(handled.into_iter().map(|handled| *handled).collect()));
        }
        for slot in &mut self.one_of_each {
            if let Some(task) = slot
                && let Poll::Ready(ended) = Pin::new(task).poll(context)
            {
                *slot = None;
                return Poll::Ready(ended);
            }
        }
        // Before the batches: what one has found comes before its end.
        if let Poll::Ready(Some(look)) = self.looks.poll_recv(context) {
            return Poll::Ready(Ended::HeldLook(look));
        }
        match self.held.poll_next_unpin(context) {
            Poll::Ready(Some(batch)) => Poll::Ready(Ended::Held(batch)),
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
#[path = "tests/under_way.rs"]
mod tests;
