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

mod state;

use std::fs::{File, create_dir_all};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use self::state::State;
use super::account::Account;
use super::directory::{lock, private};
use super::fetch::Consent;
use super::processes;
use crate::error::{Error, ErrorKind, Result};

/// How long a fast shutdown may write before an immediate one, harmless but followed by a recovery, is asked for.
const FAST_SHUTDOWN_MAX: Duration = Duration::from_secs(60);

/// PostgreSQL itself kills its children five seconds into an immediate shutdown.
const IMMEDIATE_SHUTDOWN_MAX: Duration = Duration::from_secs(15);

/// How often the server is looked at while waiting for it.
const PAUSE: Duration = Duration::from_millis(20);

/// Which kept server is meant, and how to run it.
#[derive(Clone, Debug, Default)]
pub struct KeptOptions {
    /// The directory of the server's data, log and socket; made where missing. Default: the user's state directory,
    /// see the [module](self).
    pub state_directory: Option<PathBuf>,
    /// The directory of the server's programs, before `DOORBELL_PG_BINDIR` and all that is installed. Default: none.
    pub bin_directory: Option<PathBuf>,
    /// Whether a PostgreSQL may be fetched when none is installed. Default: no.
    pub consent: Consent,
}

/// A kept server that was running a moment ago. Dropping it does nothing to the server.
#[derive(Clone, Debug)]
pub struct Kept {
    state_directory: PathBuf,
    socket_directory: PathBuf,
    version: String,
    pid: u32,
}

impl Kept {
    /// The string to connect to a database of this server with, in libpq's `key=value` form.
    ///
    /// A new server has the database `postgres`; the user is [`SUPERUSER`](super::SUPERUSER).
    pub fn connection_string(&self, database: &str) -> String {
        super::connection_string(&self.socket_directory, database)
    }

    /// The same for any user, as a URI, which drivers take that know no `key=value` form. None has a password.
    pub fn uri(&self, user: &str, database: &str) -> String {
        super::uri(&self.socket_directory, user, database)
    }

    /// The server's version, such as `17.5`; only the major version when the server was too busy to be asked.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The directory of the server's data, log and socket.
    pub fn state_directory(&self) -> &Path {
        &self.state_directory
    }
}

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
        if timeout(within, ended(kept.pid)).await.is_ok() {
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

/// Waits for the end of a process that is nobody's child here.
async fn ended(pid: u32) {
    while processes::is_alive(pid) {
        sleep(PAUSE).await;
    }
}
