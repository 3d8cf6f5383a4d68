//! Whether a pooler is in the way that has its clients share the names of prepared statements: PgBouncer before 1.21, and
//! newer ones that were told not to care (`max_prepared_statements = 0`). Clients execute each other's statements there.

use doorbell_connection::is_direct;
use tokio_postgres::Client;

use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};

impl Settings {
    /// Refuses a pooler that shares names. Asks one question where no pooler is in the way; else a second connection is made.
    ///
    /// # Errors
    /// `Config` where names are shared; else as for connecting, and the database's.
    pub(crate) async fn check_names(&self, client: &Client) -> Result<()> {
        if !self.prepares() || is_direct(client).await? {
            return Ok(());
        }
        let own = format!("doorbell_{:016x}", rand::random::<u64>());
        let statement = client.prepare(&format!("select '{own}'")).await?;
        // The pooler's session in which that was prepared is the first that is given to the next client, who keeps it.
        let (other, messages) = self.connect().await?;
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(messages.drain());
        other.batch_execute("begin").await?;
        let answer = client.query(&statement, &[]).await?;
        other.batch_execute("rollback").await?;
        match answer.first().and_then(|row| row.try_get::<_, String>(0).ok()) {
            Some(answer) if answer == own => Ok(()),
            _ => Err(Error::new(ErrorKind::Config, Error::NAMES_ARE_SHARED)),
        }
    }
}
