//! What the handlers of one `consume` tell it.

use std::{
    convert::Infallible,
    future::pending,
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
};

use tokio::sync::{Notify, watch};

use crate::exit::{Exit, Failure};

/// How many messages were handled, and whether handling can go on.
#[derive(Debug, Default)]
pub(super) struct Tally {
    handled: watch::Sender<usize>,
    failure: Mutex<Option<Failure>>,
    failed: Notify,
}

impl Tally {
    pub(super) fn handled(&self) -> usize {
        *self.handled.borrow()
    }

    /// Waits until so many were handled; without a number, for ever.
    pub(super) async fn reached(&self, count: Option<NonZeroUsize>) {
        let Some(count) = count else { return pending().await };
        let mut handled = self.handled.subscribe();
        if handled.wait_for(|handled| *handled >= count.get()).await.is_err() {
            pending().await
        }
    }

    /// Counts when the result is dropped: a handler that ran out of time has handled its message as well.
    pub(super) fn counted(&self, messages: usize) -> Counted<'_> {
        Counted(self, messages)
    }

    /// Waits until a handler has given up.
    pub(super) async fn given_up(&self) -> Failure {
        self.failed.notified().await;
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.unwrap_or_else(|| Failure::new(Exit::Failed, "handling was given up"))
    }

    /// Handling makes no sense any more, for this message or any other. Does not return, so that the message is neither
    /// completed nor failed: the consumer is stopped and gives it back.
    pub(super) async fn give_up(&self, failure: Failure) -> Infallible {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.failed.notify_one();
        pending().await
    }
}

/// Counts so many messages when it is dropped.
pub(super) struct Counted<'a>(&'a Tally, usize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.handled.send_modify(|handled| *handled += self.1);
    }
}
