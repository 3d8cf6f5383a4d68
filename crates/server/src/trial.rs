//! Handlers tried out: one message, a private server, and what became of it.
//!
//! A plain handler needs no database (see [`Delivery::for_test`](doorbell::Delivery::for_test)); one that works in the
//! transaction of its message does.

use std::time::Duration;

use doorbell::{
    Broker, ConsumerBuilder, ConsumerConfig, Message, MessageId,
    operate::{MessageRow, Status},
};

use crate::scratch;

/// Between two looks at the message that is being handled.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a trial may fail with.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// A database of its own on the process's private server, with the schema. Tests of handlers may share one, or have one each.
///
/// ```
/// use doorbell::{Message, Outcome, operate::Status};
/// use doorbell_server::Trial;
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let trial = Trial::start().await?;
/// let message = Message::new("billing", "order.placed", &7)?;
/// let handled = trial.handle(&message, |consumer| {
///     consumer.on_tx("order.placed", |order: i64, _delivery, tx| {
///         Box::pin(async move {
///             tx.execute("create table charged as select $1::bigint as id", &[&order]).await?;
///             Ok(Outcome::Done)
///         })
///     })
/// });
/// assert_eq!(handled.await?.status, Status::Completed);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Trial {
    broker: Broker,
}

impl Trial {
    /// Makes a database, as [`scratch`] does, and the schema in it.
    ///
    /// # Errors
    /// Those of [`scratch`] and of [`Broker::migrate`].
    pub async fn start() -> Result<Self> {
        let broker = Broker::connect(&scratch().await?).await?;
        broker.migrate().await?;
        Ok(Self { broker })
    }

    /// Its database: for the tables that handlers write to, and to look at what they wrote.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Publishes a message, has it handled by a consumer with the handlers given, and returns what became of it: completed,
    /// failed with its reason, or scheduled again. Waits for as long as the handler takes.
    ///
    /// # Errors
    /// Those of publishing and of [`ConsumerBuilder::start`].
    pub async fn handle(
        &self,
        message: &Message,
        handlers: impl FnOnce(ConsumerBuilder) -> ConsumerBuilder,
    ) -> Result<MessageRow> {
        let id = self.broker.producer("test").publish(message).await?;
        let once = ConsumerConfig { messages_max: Some(1), ..ConsumerConfig::default() };
        let consumer = handlers(self.broker.consumer(message.target()).config(once)).start().await?;
        let handled = self.ended(id).await;
        consumer.shutdown().await?;
        handled
    }

    async fn ended(&self, id: MessageId) -> Result<MessageRow> {
        loop {
            let message = self.broker.operator().show(id, false).await?;
            let row = message.ok_or_else(|| format!("message {id} is gone"))?.row;
            if !matches!(row.status, Status::Pending | Status::Processing) {
                return Ok(row);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
