//! Messages that are published at the same moment travel together: while a statement of one source for one target is under
//! way, those that come meanwhile wait for the next one, which takes them all. So statements grow with load, nothing delays a
//! lone message, and 32 tasks that publish side by side cost the server two statements in place of 32. One at a time: the
//! second of two would wait for the flush of the first one's commit before its own.
//!
//! What one of them is refused for is nobody else's fault: where the server has done nothing, each is published by itself.
//! And nobody waits for a statement that takes long: whoever is not on its way soon goes by itself, and who comes later does
//! not wait for it at all.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::{
    error::{Error, ErrorKind, Result},
    message::{Message, MessageId},
};

/// Most messages of a statement.
const MESSAGES_MAX: usize = 500;

/// Most bytes of payloads in a statement, where it is more than one message.
const BYTES_MAX: usize = 1 << 20;

/// How long to wait for others: longer than a statement and its flush take.
const PATIENCE: Duration = Duration::from_millis(50);

/// What is being published.
#[derive(Clone, Debug, Default)]
pub(super) struct Together(Arc<Mutex<HashMap<Lane, Traffic>>>);

/// Of one source, for one target: statements of several targets cost the server more than one of each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lane {
    source: String,
    target: String,
}

#[derive(Debug, Default)]
struct Traffic {
    /// Statements that were begun, with their numbers.
    under_way: Vec<(u64, Instant)>,
    waiting: VecDeque<Waiting>,
    /// The next number.
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    message: Message,
    tell: oneshot::Sender<Became>,
}

/// What became of a message that has waited.
#[derive(Debug)]
enum Became {
    Published(MessageId),
    /// It may have been published.
    Failed(Error),
    /// It was not: it is to go by itself.
    Left,
}

/// What a message does when it comes.
enum Way {
    /// It goes by itself, in the turn of this number.
    Go(u64),
    /// It waits, under a number.
    Wait(u64, oneshot::Receiver<Became>),
}

/// What publishes.
pub(super) trait Statements: Clone + Send + Sync + 'static {
    /// What is under way of them.
    fn together(&self) -> &Together;

    /// A statement for one message.
    fn one(&self, source: &str, message: &Message) -> impl Future<Output = Result<MessageId>> + Send;

    /// A statement for many, of which all are published or none; ids in their order.
    fn many(&self, source: &str, messages: &[Message]) -> impl Future<Output = Result<Vec<MessageId>>> + Send;
}

/// Publishes a message, in one statement with others where there are others. Dropping the future: it is not published if it
/// still waits for them.
pub(super) async fn publish(statements: &impl Statements, source: &str, message: &Message) -> Result<MessageId> {
    if !may_share(message) {
        return statements.one(source, message).await;
    }
    let lane = Lane { source: source.to_owned(), target: message.target.clone() };
    let together = statements.together();
    let (number, mut answer) = match together.enter(&lane, message) {
        Way::Go(number) => {
            let _turn = Turn { statements: statements.clone(), lane, number };
            return statements.one(source, message).await;
        }
        Way::Wait(number, answer) => (number, answer),
    };
    let became = loop {
        match timeout(PATIENCE, &mut answer).await {
            Ok(became) => break became,
            Err(_) if together.leave(&lane, number) => break Ok(Became::Left),
            Err(_) => {}
        }
    };
    match became {
        Ok(Became::Published(id)) => Ok(id),
        Ok(Became::Failed(error)) => Err(error),
        Ok(Became::Left) => statements.one(source, message).await,
        Err(_) => Err(Error::new(ErrorKind::OutcomeUnknown, "publish: the runtime ended")),
    }
}

impl Together {
    fn enter(&self, lane: &Lane, message: &Message) -> Way {
        let mut lanes = self.lanes();
        let traffic = lanes.entry(lane.clone()).or_default();
        if !traffic.is_soon_over() {
            return Way::Go(traffic.begin());
        }
        let (tell, answer) = oneshot::channel();
        let number = traffic.number();
        traffic.waiting.push_back(Waiting { number, message: message.clone(), tell });
        Way::Wait(number, answer)
    }

    /// Waits no longer. False: it is on its way, or those before it are.
    fn leave(&self, lane: &Lane, number: u64) -> bool {
        let mut lanes = self.lanes();
        let Some(traffic) = lanes.get_mut(lane).filter(|traffic| !traffic.is_soon_over()) else { return false };
        let at = traffic.waiting.iter().position(|waiting| waiting.number == number);
        at.is_some_and(|at| traffic.waiting.remove(at).is_some())
    }

    /// A turn is over: the number of the next one, and what it takes.
    fn next(&self, lane: &Lane, ended: u64) -> Option<(u64, Vec<Waiting>)> {
        let mut lanes = self.lanes();
        let Entry::Occupied(mut entry) = lanes.entry(lane.clone()) else { return None };
        let traffic = entry.get_mut();
        traffic.under_way.retain(|(number, _)| *number != ended);
        let next = if traffic.is_soon_over() { Vec::new() } else { traffic.take() };
        if !next.is_empty() {
            return Some((traffic.begin(), next));
        }
        if traffic.under_way.is_empty() && traffic.waiting.is_empty() {
            entry.remove();
        }
        None
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Lane, Traffic>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Traffic {
    /// Whether a statement is under way for which others wait.
    fn is_soon_over(&self) -> bool {
        self.under_way.iter().any(|(_, began)| began.elapsed() < PATIENCE)
    }

    fn begin(&mut self) -> u64 {
        let number = self.number();
        self.under_way.push((number, Instant::now()));
        number
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Those that have waited longest, as many as one statement takes; nobody waits for the others.
    fn take(&mut self) -> Vec<Waiting> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < MESSAGES_MAX {
            let Some(first) = self.waiting.front() else { break };
            bytes += first.message.payload.get().len();
            if bytes > BYTES_MAX && !taken.is_empty() {
                break;
            }
            taken.extend(self.waiting.pop_front().filter(|waiting| !waiting.tell.is_closed()));
        }
        taken
    }
}

/// A statement of a lane that is under way. When it is over, or nobody waits for it any more, the next one begins.
struct Turn<S: Statements> {
    statements: S,
    lane: Lane,
    number: u64,
}

impl<S: Statements> Drop for Turn<S> {
    fn drop(&mut self) {
        let Some((number, next)) = self.statements.together().next(&self.lane, self.number) else { return };
        let turn = Self { statements: self.statements.clone(), lane: self.lane.clone(), number };
        match Handle::try_current() {
            // A task, because whoever waits may leave, and the others still want to know.
            Ok(runtime) => drop(runtime.spawn(turn.take_along(next))),
            Err(_) => next.into_iter().for_each(|waiting| waiting.tell(Became::Left)),
        }
    }
}

impl<S: Statements> Turn<S> {
    async fn take_along(self, all: Vec<Waiting>) {
        let (messages, tell): (Vec<Message>, Vec<_>) =
            all.into_iter().map(|waiting| (waiting.message, waiting.tell)).unzip();
        let published = match &messages[..] {
            [message] => self.statements.one(&self.lane.source, message).await.map(|id| vec![id]),
            messages => self.statements.many(&self.lane.source, messages).await,
        };
        let became = |at: usize| match &published {
            Ok(ids) => ids.get(at).map_or(Became::Left, |id| Became::Published(*id)),
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                Became::Failed(Error::new(ErrorKind::OutcomeUnknown, error.to_string()))
            }
            Err(_) => Became::Left,
        };
        // Who has left meanwhile does not want to know.
        tell.into_iter().enumerate().for_each(|(at, tell)| drop(tell.send(became(at))));
    }
}

impl Waiting {
    fn tell(self, became: Became) {
        drop(self.tell.send(became));
    }
}

/// Whether nothing but the message itself is looked at: with a key, others may be locked or waited for, and what expires is
/// written down for each.
fn may_share(message: &Message) -> bool {
    message.dedup_key.is_none() && message.coalesce_key.is_none() && message.expires_after.is_none()
}
