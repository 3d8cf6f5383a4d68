//! The connection that migrations have to themselves.

use tokio_util::task::AbortOnDropHandle;

use crate::{connection::Settings, error::Result};

/// A connection of its own: migrations run once, and session settings must not reach the pool.
pub(super) struct Session {
    pub(super) client: tokio_postgres::Client,
    _driver: AbortOnDropHandle<()>,
}

impl Session {
    pub(super) async fn open(settings: &Settings) -> Result<Self> {
        let (client, messages) = settings.connect().await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(messages.drain()));
        Ok(Self { client, _driver: driver })
    }
}
