//! Sweeps of parked consumers, many in one statement.
//!
//! A consumer that trusts in bells still looks now and then, because a notification can be lost. A thousand idle consumers
//! in a process would look two hundred times a second; here one statement asks for all whose sweep is due, and only who
//! has something waiting looks by itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::bell::Bell;
use crate::store::Store;

/// How long sweeps are collected: well below any interval of sweeps that makes sense.
const COLLECT: Duration = Duration::from_millis(100);

/// The handle; dropping it ends the task.
#[derive(Debug)]
pub(crate) struct Sweeper {
    requests: mpsc::UnboundedSender<Request>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Request {
    target: String,
    waiting: oneshot::Sender<bool>,
}

impl Sweeper {
    /// `due` is rung with every statement: the bell that announces scheduled messages can be lost as well.
    pub(crate) fn start(store: Store, due: Arc<Bell>) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        let task = AbortOnDropHandle::new(tokio::spawn(sweep_for_ever(store, due, inbox)));
        Self { requests, _task: task }
    }

    /// Whether anything is pending for the target. True as well when nobody can say: look.
    pub(crate) fn is_waiting(&self, target: &str) -> impl Future<Output = bool> + Send + use<> {
        let (waiting, answer) = oneshot::channel();
        let sent = self.requests.send(Request { target: target.to_owned(), waiting });
        async move { sent.is_err() || answer.await.unwrap_or(true) }
    }
}

async fn sweep_for_ever(store: Store, due: Arc<Bell>, mut inbox: mpsc::UnboundedReceiver<Request>) {
    while let Some(first) = inbox.recv().await {
        tokio::time::sleep(COLLECT).await;
        let mut asking: BTreeMap<String, Vec<oneshot::Sender<bool>>> = BTreeMap::new();
        let mut next = Some(first);
        while let Some(Request { target, waiting }) = next {
            asking.entry(target).or_default().push(waiting);
            next = inbox.try_recv().ok();
        }
        due.ring();
        let targets: Vec<String> = asking.keys().cloned().collect();
        // No retry here: who gets no answer looks by itself, and has a way of its own with errors.
        let waiting = store.waiting(&targets).await.unwrap_or_else(|error| {
            debug!(?error, "a sweep failed; its consumers look by themselves");
            targets
        });
        for (target, askers) in asking {
            let found = waiting.contains(&target);
            for asker in askers {
                let _ = asker.send(found);
            }
        }
    }
}
