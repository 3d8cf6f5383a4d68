//! Following what happens: new messages and changes of status, each told once, also those whose transaction committed
//! long after it began.

use std::time::Instant;

use crate::{
    error::Result,
    rows::AuditEvent,
    store::{Seen, Store, Window},
};

/// Follows new messages and changes of status; from [`Operator::follow`](super::Operator::follow).
///
/// ```no_run
/// # async fn example(broker: doorbell::Broker) -> Result<(), doorbell::Error> {
/// let mut follower = broker.operator().follow(Some("billing"));
/// loop {
///     for event in follower.events().await? {
///         println!("{} {:?}", event.action, event.id);
///     }
///     tokio::time::sleep(std::time::Duration::from_millis(500)).await;
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Follower {
    store: Store,
    target: Option<String>,
    messages: Window,
    events: Window,
    started: bool,
}

impl Follower {
    pub(crate) fn new(store: Store, target: Option<String>) -> Self {
        Self { store, target, messages: Window::default(), events: Window::default(), started: false }
    }

    /// What happened since the last call, in the order of its time; since now for the first call, which says nothing. Call
    /// it again at once while it returns thousands, else after a pause of your choice: each call is three short statements.
    ///
    /// A message is told when it appears (`published`), and each change of status that the audit log has: by default what
    /// ended an attempt or a message, with level `all` claims and the rest, too. A message that came and went between two
    /// calls is told by its end alone. Pauses, breakers and other events of the target are told as well. What a transaction
    /// wrote more than ten seconds before the first call is not told, even if it commits later; nor what commits after 50,000
    /// later ids were drawn and not committed while it was open. Cancelling a call loses nothing: the next one tells the same.
    ///
    /// # Errors
    /// The database's. The next call goes on where the last good one ended.
    pub async fn events(&mut self) -> Result<Vec<AuditEvent>> {
        loop {
            let (told, all) = self.look().await?;
            if self.started {
                return Ok(told);
            }
            // What was there before is passed over, however much it is.
            self.started = all;
            if all {
                return Ok(Vec::new());
            }
        }
    }

    /// One look into both tables: what it tells, and whether it went to their ends.
    async fn look(&mut self) -> Result<(Vec<AuditEvent>, bool)> {
        let now = Instant::now();
        let head = self.store.head().await?;
        let (mut messages, mut events) = (self.messages.clone(), self.events.clone());
        if messages.looked_at == 0.0 {
            messages.begin_at(head.first_message, head.at - Store::FOLLOW_BACK_SECONDS);
            events.begin_at(head.first_event, head.at - Store::FOLLOW_BACK_SECONDS);
        }
        messages.look(head.oldest_xid, head.next_xid, now);
        events.look(head.oldest_xid, head.next_xid, now);
        let published = self.store.published_since(&messages).await?;
        let changed = self.store.changed_since(&events).await?;
        let is_all = |seen: &[Seen]| seen.len() < Store::FOLLOW_LIMIT;
        messages.saw(published.iter().map(|seen| seen.id), is_all(&published), head.at, now);
        events.saw(changed.iter().map(|seen| seen.id), is_all(&changed), head.at, now);
        let all = is_all(&published) && is_all(&changed);
        (self.messages, self.events) = (messages, events);
        let told = published.into_iter().chain(changed).filter_map(|seen| seen.event);
        let mut told: Vec<AuditEvent> =
            told.filter(|event| self.target.is_none() || event.target == self.target).collect();
        told.sort_by_key(|event| event.at);
        Ok((told, all))
    }
}
