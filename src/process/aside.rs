//! The thread that shows that this process lives: heartbeat and listener run on it and nothing of the program's does, so
//! handlers that block every thread of the program's runtime cost neither the lease nor a bell.
//!
//! What the two sides share can be used from either and is never held across an await: the bells, the owner, whether the
//! listener is up, what is in hand and how it was found; the lock for strays is waited for from here for a moment only. A connection is
//! driven by the runtime that opened it. Therefore the store of this side is reached through [`Aside::call`] alone, and
//! that of the program's side is not used here.

use std::{convert::Infallible, future::Future, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tracing::{dispatcher, info, subscriber::NoSubscriber, warn};

use crate::{
    error::{Error, ErrorKind, Result},
    store::Store,
    telemetry::{Event, Telemetry},
};

/// A question to the program's runtime, whose answer says that it still runs tasks.
type Question = oneshot::Sender<()>;

/// The way to the thread, and the store whose connection lives there.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    runtime: Handle,
    store: Store,
}

/// Ends the thread when it is dropped, wherever that is, without waiting for it. The thread ends as well with the runtime
/// that it was started from: whoever cannot run handlers any more must not keep their messages.
#[derive(Debug)]
pub(super) struct Alive(#[allow(dead_code, reason = "it is there to be dropped")] oneshot::Sender<Infallible>);

impl Aside {
    /// Starts the thread. `tasks` are the program's; one is added that answers for its runtime. After `patience` without
    /// an answer the runtime is called blocked.
    pub(super) fn start(store: Store, tasks: &mut JoinSet<()>, patience: Duration) -> Result<(Self, Alive)> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Io, "the thread of the heartbeat could not be started").with_source(error)
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (alive, dropped) = oneshot::channel();
        let (ask, mut questions) = mpsc::unbounded_channel::<Question>();
        tasks.spawn(async move {
            while let Some(question) = questions.recv().await {
                let _ = question.send(());
            }
        });
        let aside = Self { runtime: runtime.handle().clone(), store };
        let telemetry = aside.store.telemetry().clone();
        let lines = dispatcher::get_default(Clone::clone);
        let live = move || {
            // Where the program has no collector yet, the one that it sets later is to hear this thread, too.
            let _lines = (!lines.is::<NoSubscriber>()).then(|| dispatcher::set_default(&lines));
            runtime.block_on(async {
                tokio::select! {
                    _ = dropped => {}
                    () = watch(&ask, patience, &telemetry) => {}
                }
            });
        };
        std::thread::Builder::new().name("doorbell".to_owned()).spawn(live).map_err(failed)?;
        Ok((aside, Alive(alive)))
    }

    /// Runs a task there for ever, or until the set is dropped.
    pub(super) fn spawn(
        &self,
        tasks: &mut JoinSet<()>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        tasks.spawn_on(task, &self.runtime)
    }

    /// The store, for tasks that run there.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Asks the database from either side. Cancelling it ends the call there, too.
    pub(super) async fn call<T, F>(&self, call: impl FnOnce(Store) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut task = JoinSet::new();
        task.spawn_on(call(self.store.clone()), &self.runtime);
        match task.join_next().await {
            Some(Ok(answer)) => answer,
            _ => Err(Error::new(ErrorKind::Closed, "the broker was closed")),
        }
    }
}

/// Asks the program's runtime again and again whether it runs tasks, and says so when that changes. Ends with the runtime.
async fn watch(ask: &mpsc::UnboundedSender<Question>, patience: Duration, telemetry: &Telemetry) {
    loop {
        sleep(patience / 2).await;
        let asked = Instant::now();
        let (question, mut answer) = oneshot::channel();
        if ask.send(question).is_err() {
            return;
        }
        let answered = match timeout(patience, &mut answer).await {
            Ok(answered) => answered,
            Err(_) => {
                let silent = asked.elapsed();
                warn!(?silent, "handlers block the runtime: none of its threads runs other tasks; the lease is kept");
                telemetry.tell(Event::Runtime { blocked: true, silent });
                let answered = answer.await;
                let silent = asked.elapsed();
                info!(?silent, "the runtime runs tasks again");
                telemetry.tell(Event::Runtime { blocked: false, silent });
                answered
            }
        };
        if answered.is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "tests/aside.rs"]
mod tests;
