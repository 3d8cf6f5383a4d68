//! Messages summed up: what happened to them, why they failed, what is left.

use std::{collections::BTreeMap, time::Duration};

use super::Operator;
use crate::{
    error::Result,
    rows::{BacklogRow, ErrorGroup, ErrorRate, Traffic},
};

impl Operator {
    /// How many messages of each target are set aside: the database refuses to change them, or to let them be settled;
    /// [`explain`](Self::explain) says why. Targets without any are left out.
    ///
    /// # Errors
    /// The database's.
    #[cfg(feature = "metrics")]
    pub(crate) async fn set_aside(&self) -> Result<Vec<(String, i64)>> {
        self.core.store().set_aside().await
    }

    /// How often what no process counts has happened to messages of each target, by action, since the beginning.
    #[cfg(feature = "metrics")]
    pub(crate) async fn uncounted_actions(&self) -> Result<Vec<(String, String, i64)>> {
        self.core.store().uncounted_actions().await
    }

    /// What happened to messages in the last `span`, of one target or of all together: by the minute up to three hours, else by
    /// ten minutes; as far back as `traffic_retention`, 2 days by default.
    ///
    /// # Errors
    /// The database's.
    pub async fn traffic(&self, target: Option<&str>, span: Duration) -> Result<Traffic> {
        self.core.store().traffic(target, span).await
    }

    /// How often these of the actions happened to each of these targets in the last `span`, by name and always by the minute.
    /// Targets to which nothing happened are left out.
    ///
    /// # Errors
    /// The database's.
    pub async fn traffic_of_each(
        &self,
        targets: &[String],
        actions: &[&str],
        span: Duration,
    ) -> Result<BTreeMap<String, Traffic>> {
        self.core.store().traffic_of_each(targets, actions, span).await
    }

    /// How messages of each source fared at a target, the most failures first. Empty: none was published for it in the last 24
    /// hours.
    ///
    /// # Errors
    /// The database's.
    pub async fn error_rates(&self, target: &str) -> Result<Vec<ErrorRate>> {
        self.core.store().error_rates(target).await
    }

    /// Why messages failed or wait for a retry, grouped by what is alike in their reasons, the greatest groups first. Looks at
    /// 100,000 failed messages at most: see [`ErrorGroup::all_seen`]. Empty: none has.
    ///
    /// # Errors
    /// The database's.
    pub async fn errors(&self, target: Option<&str>, limit: u32) -> Result<Vec<ErrorGroup>> {
        self.core.store().errors(target, limit).await
    }

    /// What has not ended, by target, record type, source and status, the most first. Reads all of it. Empty: nothing.
    ///
    /// # Errors
    /// The database's.
    pub async fn backlog(&self, target: Option<&str>, limit: u32) -> Result<Vec<BacklogRow>> {
        self.core.store().backlog(target, limit).await
    }
}
