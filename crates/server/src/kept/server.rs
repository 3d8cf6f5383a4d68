//! Which server is meant, and how it is reached.

use std::path::{Path, PathBuf};

use crate::fetch::Consent;

/// Which kept server is meant, and how to run it.
#[derive(Clone, Debug, Default)]
pub struct KeptOptions {
    /// The directory of the server's data, log and socket; made where missing. Default: the user's state directory,
    /// see the [module](super).
    pub state_directory: Option<PathBuf>,
    /// The directory of the server's programs, before `DOORBELL_PG_BINDIR` and all that is installed. Default: none.
    pub bin_directory: Option<PathBuf>,
    /// Whether a PostgreSQL may be fetched when none is installed. Default: no.
    pub consent: Consent,
}

/// A kept server that was running a moment ago. Dropping it does nothing to the server.
#[derive(Clone, Debug)]
pub struct Kept {
    pub(super) state_directory: PathBuf,
    pub(super) socket_directory: PathBuf,
    pub(super) version: String,
    pub(super) pid: u32,
}

impl Kept {
    /// The string to connect to a database of this server with, in libpq's `key=value` form.
    ///
    /// A new server has the database `postgres`; the user is [`SUPERUSER`](crate::SUPERUSER).
    pub fn connection_string(&self, database: &str) -> String {
        crate::connection_string(&self.socket_directory, database)
    }

    /// The same for any user, as a URI, which drivers take that know no `key=value` form. None has a password.
    pub fn uri(&self, user: &str, database: &str) -> String {
        crate::uri(&self.socket_directory, user, database)
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
