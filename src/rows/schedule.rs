//! Schedules: what is published again and again.

use std::time::{Duration, SystemTime};

use crate::message::Message;

/// What [`Operator::schedule`](crate::operate::Operator::schedule) is to publish, and when. A service may say it each time it
/// starts: saying the same again moves no tick.
///
/// ```no_run
/// use doorbell::{Message, operate::{Schedule, When}};
///
/// # async fn example(broker: doorbell::Broker) -> doorbell::Result<()> {
/// let report = Message::new("billing", "report.run", &"of yesterday")?;
/// let nightly = When::Cron { expression: "30 2 * * *".into(), zone: "Europe/Berlin".into() };
/// broker.operator().schedule(&Schedule::new("nightly", nightly, report)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Its name, by which it is changed and ended.
    pub name: String,
    /// When.
    pub when: When,
    /// What. A delay and a dedup key are not used.
    pub message: Message,
    /// Which application publishes it.
    pub source: String,
    /// What becomes of ticks at which nobody was there to fire them.
    pub missed: Missed,
    /// No tick is fired while the message of the one before has not ended.
    pub skip_overlap: bool,
    /// Each message is due at a random time so long after its tick.
    pub jitter: Duration,
}

impl Schedule {
    /// A schedule of the source `schedule` that makes up for the latest of missed ticks, with no jitter.
    pub fn new(name: impl Into<String>, when: When, message: Message) -> Self {
        Self {
            name: name.into(),
            when,
            message,
            source: "schedule".to_owned(),
            missed: Missed::Latest,
            skip_overlap: false,
            jitter: Duration::ZERO,
        }
    }
}

/// When a schedule is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// At the times that five fields of cron name.
    Cron {
        /// Minute, hour, day of month, month, day of week: `30 2 * * mon-fri`.
        expression: String,
        /// As the server knows it: `UTC`, `Europe/Berlin`.
        zone: String,
    },
    /// Every so long, a second at least, from when it was made.
    Every(Duration),
}

/// What becomes of ticks at which nobody was there to fire them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// One message, for the latest of them; its header `missed` says for how many others.
    Latest,
    /// One message for each, a hundred at most, the oldest first.
    All,
    /// None, for those that are more than a minute late.
    Skip,
}

impl Missed {
    /// As SQL and the program have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::All => "all",
            Self::Skip => "skip",
        }
    }
}

/// A schedule as it stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScheduleRow {
    /// Its name.
    pub name: String,
    /// To whom it publishes.
    pub target: String,
    /// What.
    pub record_type: String,
    /// Its cron expression, if it has one.
    pub cron: Option<String>,
    /// Every how many seconds, if it goes by that.
    pub every_seconds: Option<f64>,
    /// The time zone of its cron expression.
    pub zone: String,
    /// The next tick; far in the future where none is left.
    pub next_at: Option<SystemTime>,
    /// The last tick that was fired.
    pub last_at: Option<SystemTime>,
    /// The message that was published then.
    pub last_id: Option<i64>,
    /// How many messages it has published.
    pub fired: i64,
    /// By whom it was paused, if it is.
    pub paused_by: Option<String>,
}
