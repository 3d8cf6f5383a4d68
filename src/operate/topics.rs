//! Topics: one event for many, again and for those who come late.

use super::Operator;
use crate::{
    error::Result,
    message::MessageId,
    rows::{Replay, ReplayPart, Subscription, TopicRow},
};

impl Operator {
    /// Subscribes a target to a topic: from now on it gets a copy of every message that is published there, each with its own
    /// state, in the transaction that publishes. For who is subscribed already, types and sources are changed: false.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a name or pattern that is none;
    /// [`IllegalTransition`](crate::ErrorKind::IllegalTransition) for subscriptions that would lead back to the topic, a queue
    /// in use that is not to be tapped, and history for who is subscribed already; else the database's.
    pub async fn subscribe(&self, subscription: &Subscription) -> Result<bool> {
        self.core.store().subscribe(subscription).await
    }

    /// Ends a subscription; copies that were made stay. False: there was none.
    ///
    /// # Errors
    /// The database's.
    pub async fn unsubscribe(&self, topic: &str, target: &str) -> Result<bool> {
        self.core.store().unsubscribe(topic, target).await
    }

    /// The topics and tapped queues by name, a row for each subscriber, and one for a topic without any.
    ///
    /// # Errors
    /// The database's.
    pub async fn topics(&self) -> Result<Vec<TopicRow>> {
        self.core.store().topics().await
    }

    /// The targets that would get a message of this type which is published to a topic or queue, by name; of any source where
    /// `source` is `None`. Empty: nobody.
    ///
    /// # Errors
    /// The database's.
    pub async fn routes(&self, topic: &str, record_type: &str, source: Option<&str>) -> Result<Vec<String>> {
        self.core.store().routes(topic, record_type, source).await
    }

    /// Publishes again what was completed of a target, oldest first: copies with new ids, the old messages stay what they are.
    /// They have a header `replayed`. Returns how many there were. In transactions of a thousand messages; cancelling it leaves
    /// those that were copied.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a name or pattern that is none; else the database's.
    pub async fn replay(&self, replay: &Replay) -> Result<usize> {
        Ok(self.replay_part(replay, 0, None).await?.copied)
    }

    /// A part of a replay, for who cannot wait for all of it: walks over `walk_max` messages behind `after`, or a few more; 0 is
    /// the beginning. To go on, say [`ReplayPart::next`], and its times as those asked for: what is published meanwhile is not
    /// meant.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub async fn replay_part(&self, replay: &Replay, after: MessageId, walk_max: Option<u32>) -> Result<ReplayPart> {
        self.core.store().replay_part(replay, after, walk_max).await
    }
}
