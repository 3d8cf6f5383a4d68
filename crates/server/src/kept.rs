//! The server that stays: `doorbell up` starts it, `doorbell down` stops it, everything else finds it.
//!
//! All there is to know about it lies in its state directory, which only its account may enter:
//!
//! ```text
//! <state>/             its lock orders `up`, `down` and `find`
//!     data/            commits survive crashes, as PostgreSQL does by itself
//!     log              grows; may be removed while the server is down
//!     .s.PGSQL.5432    the socket; below /tmp when the path would be too long for one
//! ```
//!
//! The state directory is [`KeptOptions::state_directory`], or else `$XDG_STATE_HOME/doorbell` or
//! `~/.local/state/doorbell`; for root, whose home the server's account cannot enter, `/var/lib/doorbell`.

mod server;
mod state;

use std::fs::{File, create_dir_all};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::timeout;

use self::state::State;
use super::account::Account;
use super::directory::{lock, private};
use super::processes;
use crate::error::{Error, ErrorKind, Result};

pub use self::server::{Kept, KeptOptions};

/// How long a fast shutdown may write before an immediate one, harmless but followed by a recovery, is asked for.
const FAST_SHUTDOWN_MAX: Duration = Duration::from_secs(60);

/// PostgreSQL itself kills its children five seconds into an immediate shutdown.
const IMMEDIATE_SHUTDOWN_MAX: Duration = Duration::from_secs(15);

/// Starts the kept server, or finds it running; returns when it accepts connections.
///
/// Any number of these at once start one server. Cancelled, the server may or may not have been started.
///
/// # Errors
/// Those of [`Installation::find`](super::Installation::find) and
/// [`Installation::fetch`](super::Installation::fetch); [`Config`](ErrorKind::Config) when the data was made by another
/// major version than the programs found; [`Io`](ErrorKind::Io) with the end of the server's log when it does not start.
pub async fn up(options: &KeptOptions) -> Result<Kept> {
    let account = Account::current()?;
    let state = State::new(options, &account)?;
    if let Some(parent) = state.directory.parent() {
        let failed = |e| Error::new(ErrorKind::Io, format!("cannot create {}", parent.display())).with_source(e);
        create_dir_all(parent).map_err(failed)?;
    }
    private(&account, &state.directory).await?;
    let _alone = lock(&state.directory, File::try_lock).await?;
    match state.find().await? {
        Some(kept) => Ok(kept),
        None => state.start(&account, options).await,
    }
}

/// Stops the kept server and waits for its end; false when none was running. The data stays.
///
/// Connections are ended and their open transactions rolled back. Cancelled, the server still stops.
pub async fn down(options: &KeptOptions) -> Result<bool> {
    let account = Account::current()?;
    let state = State::new(options, &account)?;
    if !state.directory.is_dir() {
        return Ok(false);
    }
    let _alone = lock(&state.directory, File::try_lock).await?;
    let Some(kept) = state.find().await? else { return Ok(false) };
    for (signal, within) in [(Signal::SIGINT, FAST_SHUTDOWN_MAX), (Signal::SIGQUIT, IMMEDIATE_SHUTDOWN_MAX)] {
        processes::signal(kept.pid, signal);
        if timeout(within, processes::ended(kept.pid)).await.is_ok() {
            if state.socket_directory != state.directory {
                account.remove(&state.socket_directory).await?;
            }
            return Ok(true);
        }
    }
    Err(Error::new(ErrorKind::Timeout, format!("the server (process {}) does not stop", kept.pid)))
}

/// Finds the kept server if it is running; nothing when it is down or was never started.
///
/// Waits while the server is being started or stopped. A process id left behind by a crash does not deceive it: the
/// server must answer on its socket and name our data directory.
pub async fn find(options: &KeptOptions) -> Result<Option<Kept>> {
    let state = State::new(options, &Account::current()?)?;
    if !state.directory.is_dir() {
        return Ok(None);
    }
    let _together = lock(&state.directory, File::try_lock_shared).await?;
    state.find().await
}
