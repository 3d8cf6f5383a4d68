//! Schedules: what is published again and again, by whoever is there.

use std::{collections::BTreeMap, time::SystemTime};

use super::Operator;
use crate::{
    error::Result,
    message::MessageId,
    rows::{Schedule, ScheduleRow},
};

impl Operator {
    /// Makes a schedule, or changes the one of that name; saying the same again changes nothing. At each tick one message is
    /// published, whichever process fires it: a consumer of the target, to the millisecond, or the maintenance. Returns the next
    /// tick.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a cron expression that is none or never comes; else the database's, 22023 for
    /// a time zone that the server does not know.
    pub async fn schedule(&self, schedule: &Schedule) -> Result<SystemTime> {
        self.core.store().schedule(schedule).await
    }

    /// The schedules, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>> {
        self.core.store().schedules().await
    }

    /// For each target with schedules that are not paused, for how many seconds the one that is latest should have fired.
    #[cfg(feature = "metrics")]
    pub(crate) async fn lateness_of_schedules(&self) -> Result<Vec<(String, f64)>> {
        self.core.store().lateness_of_schedules().await
    }

    /// The next ticks of each schedule that is not paused, at most so many, by its name. Those without any are left out.
    ///
    /// # Errors
    /// The database's.
    pub async fn next_ticks(&self, most: u32) -> Result<BTreeMap<String, Vec<SystemTime>>> {
        self.core.store().next_ticks(most).await
    }

    /// Ends a schedule; what it has published stays. False: there was none.
    ///
    /// # Errors
    /// The database's.
    pub async fn unschedule(&self, name: &str) -> Result<bool> {
        self.core.store().unschedule(name).await
    }

    /// Pauses a schedule, or lets it go on; then what was missed is made up for as the schedule says. False: it was so, or there
    /// is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn pause_schedule(&self, name: &str, paused: bool) -> Result<bool> {
        self.core.store().pause_schedule(name, paused).await
    }

    /// Publishes what a schedule publishes, now and beside its ticks.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no such schedule; else the database's.
    pub async fn fire_schedule(&self, name: &str) -> Result<MessageId> {
        self.core.store().fire_schedule(name).await
    }
}
