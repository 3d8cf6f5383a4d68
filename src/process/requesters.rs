//! The requests of this process whose answers are waited for: one LISTEN, one bell, one task and one statement for all.
//!
//! A bell is a hint here, too: whatever rings, the task asks what has become of all that wait. Bells can be lost, and not
//! every end of a message rings (see `code/requests`), so it also asks unasked.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{bell::Bell, listener::Listener, session::PingConfig};
use crate::{
    connection::Settings,
    error::Result,
    message::{Answer, MessageId, Request},
    outage::Outage,
    store::Store,
};

const RETRY_BASE: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(5);

/// Who waits for answers. Dropping it ends the task; nobody is answered any more then.
#[derive(Debug)]
pub(crate) struct Requesters {
    /// How what this process asks begins; the rest is each request's secret.
    name: String,
    waiting: Arc<Waiting>,
    _listener: Listener,
    _task: AbortOnDropHandle<()>,
}

/// A request about to be published.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) reply_to: String,
    /// Bells that had been heard before it was.
    bells: u64,
}

/// One that waits; dropped, it does no more.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    waiting: &'a Waiting,
    key: (MessageId, u64),
    answer: oneshot::Receiver<Answer<Box<str>>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// A std mutex: never held across an await. Several may wait for one message, published under one dedup key.
    all: Mutex<BTreeMap<(MessageId, u64), Entry>>,
    next: AtomicU64,
    /// Those that the looks so far were for.
    bells: AtomicU64,
    /// Rung here, for a look that no bell of others asks for.
    again: Bell,
}

#[derive(Debug)]
struct Entry {
    reply_to: String,
    tell: oneshot::Sender<Answer<Box<str>>>,
}

impl Requesters {
    /// Returns once LISTEN is in force, or the listener is known to be down. `every`: how often to look unasked.
    pub(crate) async fn start(store: Store, settings: Settings, ping: PingConfig, every: Duration) -> Result<Self> {
        let name = format!("{:016x}", rand::random::<u64>());
        let channel = store.reply_channel(&name).await?;
        let (waiting, bell) = (Arc::<Waiting>::default(), Arc::<Bell>::default());
        let listener = Listener::of_requesters(store.clone(), settings, ping);
        listener.subscribe(vec![channel], &bell).await;
        let task = tokio::spawn(look_for_ever(store, waiting.clone(), bell, every));
        Ok(Self { name, waiting, _listener: listener, _task: AbortOnDropHandle::new(task) })
    }

    /// Before a request is published.
    pub(crate) fn ask(&self) -> Asking {
        let reply_to = format!("{}.{:032x}", self.name, rand::random::<u128>());
        Asking { reply_to, bells: self.waiting.bells.load(Ordering::Acquire) }
    }

    /// After it was: waits for its end.
    pub(crate) fn wait(&self, asking: &Asking, request: &Request) -> Waiter<'_> {
        let (tell, answer) = oneshot::channel();
        let key = (request.id, self.waiting.next.fetch_add(1, Ordering::Relaxed));
        self.waiting.with(|all| all.insert(key, Entry { reply_to: request.reply_to.clone(), tell }));
        // A look that was for a bell meanwhile knew nothing of it, and that may have been its bell; another's rings elsewhere.
        // Other looks took no bell: were they counted, whoever asks while one runs would cause the next, for ever.
        if self.waiting.bells.load(Ordering::Acquire) != asking.bells || request.reply_to != asking.reply_to {
            self.waiting.again.ring();
        }
        Waiter { waiting: &self.waiting, key, answer }
    }
}

impl Waiter<'_> {
    /// What became of it; `None`: nobody looks any more.
    pub(crate) async fn answer(&mut self) -> Option<Answer<Box<str>>> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiting.with(|all| all.remove(&self.key));
    }
}

impl Waiting {
    fn tell(&self, id: MessageId, answer: &Answer<Box<str>>) {
        let told = self.with(|all| {
            let keys: Vec<_> = all.range((id, 0)..=(id, u64::MAX)).map(|(key, _)| *key).collect();
            keys.iter().filter_map(|key| all.remove(key)).collect::<Vec<_>>()
        });
        for entry in told {
            let _ = entry.tell.send(answer.clone());
        }
    }

    /// The requests that wait, each once.
    fn asked(&self) -> (Vec<MessageId>, Vec<String>) {
        self.with(|all| {
            let mut asked: Vec<_> = all.iter().map(|(key, entry)| (key.0, entry.reply_to.clone())).collect();
            asked.dedup();
            asked.into_iter().unzip()
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<(MessageId, u64), Entry>) -> T) -> T {
        f(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn look_for_ever(store: Store, waiting: Arc<Waiting>, bell: Arc<Bell>, every: Duration) {
    let mut outage = Outage::new("answers to requests cannot be looked for", "looking for answers to requests")
        .pauses(RETRY_BASE, RETRY_CAP);
    loop {
        tokio::select! {
            // Before it is collected who waits: who comes later sees that this look does not know of it.
            () = bell.rung() => drop(waiting.bells.fetch_add(1, Ordering::AcqRel)),
            () = waiting.again.rung() => {}
            () = sleep(every) => {}
        }
        let (ids, reply_tos) = waiting.asked();
        if ids.is_empty() {
            continue;
        }
        let reply_tos: Vec<&str> = reply_tos.iter().map(String::as_str).collect();
        match store.answers(&ids, &reply_tos).await {
            Ok(answers) => {
                outage.over();
                answers.iter().for_each(|(id, answer)| waiting.tell(*id, answer));
            }
            Err(error) => {
                sleep(outage.failed(&error)).await;
                waiting.again.ring();
            }
        }
    }
}
