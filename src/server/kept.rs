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

use std::fs::{File, create_dir_all};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::account::Account;
use super::directory::{check_socket_length, lock, private};
use super::fetch::{Consent, or_fetch};
use super::installation::Installation;
use super::readiness::{self, Status};
use super::{processes, template};
use crate::error::{Error, ErrorKind, Result};

/// A start that replays a long log after a crash on a slow disk is the slowest that is still a start.
const START_MAX: Duration = Duration::from_secs(120);

/// How long a process that looks like the server may be silent before it is taken for another one.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// How long a fast shutdown may write before an immediate one, harmless but followed by a recovery, is asked for.
const FAST_SHUTDOWN_MAX: Duration = Duration::from_secs(60);

/// PostgreSQL itself kills its children five seconds into an immediate shutdown.
const IMMEDIATE_SHUTDOWN_MAX: Duration = Duration::from_secs(15);

/// How often the server is looked at while waiting for it.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs `"$@"` on its own and prints its process id; the shell's end makes it a child of the system's first process,
/// so nobody has to wait for it.
const DETACH: &str = r#""$@" </dev/null >>"$0" 2>&1 & echo "$!""#;

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
/// Those of [`Installation::find`] and [`Installation::fetch`]; [`Config`](ErrorKind::Config) when the data was made by another major version than
/// the programs found; [`Io`](ErrorKind::Io) with the end of the server's log when it does not start.
pub async fn up(options: &KeptOptions) -> Result<Kept> {
    let account = Account::current()?;
    let state = State::new(options, &account)?;
    if let Some(parent) = state.directory.parent() {
        let failed = |e| Error::new(ErrorKind::Io, format!("cannot create {}", parent.display())).with_source(e);
        create_dir_all(parent).map_err(failed)?;
    }
    private(&account, &state.directory)?;
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

/// The state directory and what is where in it.
struct State {
    directory: PathBuf,
    socket_directory: PathBuf,
}

impl State {
    fn new(options: &KeptOptions, account: &Account) -> Result<Self> {
        let directory = match &options.state_directory {
            Some(directory) => std::path::absolute(directory)
                .map_err(|e| Error::config("the state directory has no usable name").with_source(e))?,
            None => default_state_directory(account)?,
        };
        let socket_directory = if check_socket_length(&directory).is_ok() {
            directory.clone()
        } else {
            let name = Sha256::digest(directory.as_os_str().as_bytes());
            let name: String = name.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            Path::new("/tmp").join(format!("doorbell-{}", account.uid)).join(format!("kept-{name}"))
        };
        Ok(Self { directory, socket_directory })
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Finds the running server. Call it with the state locked.
    async fn find(&self) -> Result<Option<Kept>> {
        let begin = Instant::now();
        while let Some(Status { pid, .. }) = Status::read(&self.data()) {
            match self.ask().await {
                Answer::Ours(version) => {
                    let (state_directory, socket_directory) = (self.directory.clone(), self.socket_directory.clone());
                    return Ok(Some(Kept { state_directory, socket_directory, version, pid }));
                }
                Answer::NotYet if begin.elapsed() > START_MAX => {
                    let message = format!("the server in {} neither starts nor stops", self.directory.display());
                    return Err(Error::new(ErrorKind::Timeout, message));
                }
                // A server whose `up` was killed may still be on its way to its socket.
                Answer::None if begin.elapsed() > SILENCE_MAX || !processes::is_alive(pid) => return Ok(None),
                Answer::NotYet | Answer::None => sleep(PAUSE).await,
            }
        }
        Ok(None)
    }

    /// Asks whoever listens on the socket.
    async fn ask(&self) -> Answer {
        let target = super::connection_string(&self.socket_directory, "postgres");
        let question = async {
            let (client, connection) = tokio_postgres::connect(&target, NoTls).await?;
            let names = "select current_setting('data_directory'), current_setting('server_version')";
            let asking = async move { client.query_one(names, &[]).await };
            // The connection ends by itself when the client, gone with its question, is dropped.
            let (row, _) = tokio::join!(asking, connection);
            row
        };
        match timeout(START_MAX, question).await {
            Err(_) => Answer::NotYet,
            Ok(Ok(row)) => {
                let version: &str = row.get(1);
                let version = version.split_whitespace().next().unwrap_or_default();
                if same(Path::new(row.get::<_, &str>(0)), &self.data()) {
                    Answer::Ours(version.to_owned())
                } else {
                    Answer::None
                }
            }
            Ok(Err(error)) => match error.code() {
                // Starting, recovering or stopping.
                Some(&SqlState::CANNOT_CONNECT_NOW) => Answer::NotYet,
                // Too busy to be asked; but nobody else could have made a socket in our directory.
                Some(_) => Answer::Ours(self.data_major().map(|major| major.to_string()).unwrap_or_default()),
                None => Answer::None,
            },
        }
    }

    /// The major version that made the data, if there is data.
    fn data_major(&self) -> Option<u32> {
        std::fs::read_to_string(self.data().join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// Starts the server, making its data first where there is none. Call it with the state locked alone.
    async fn start(&self, account: &Account, options: &KeptOptions) -> Result<Kept> {
        let major = self.data_major();
        let found = Installation::find_for_data(options.bin_directory.as_deref(), major);
        let installation = or_fetch(found, options.consent).await?;
        major.map_or(Ok(()), |major| installation.check_reads(major))?;
        if !self.data().is_dir() {
            self.make_data(account, &installation).await?;
        }
        if self.socket_directory != self.directory {
            private(account, self.socket_directory.parent().unwrap_or(&self.socket_directory))?;
            private(account, &self.socket_directory)?;
        }
        let mut detach = account.command("/bin/sh");
        detach.args(["-c", DETACH]).arg(self.log()).arg(installation.program("postgres"));
        detach.arg("-D").arg(self.data()).arg("-k").arg(&self.socket_directory).args(["-c", "listen_addresses="]);
        let pid = account.run(detach).await?;
        let pid = pid
            .trim()
            .parse()
            .map_err(|e| Error::new(ErrorKind::Io, "the shell did not say the server's process id").with_source(e))?;
        let data = self.data();
        let why = tokio::select! {
            () = readiness::ready(&data, pid) => {
                let version = installation.version().to_owned();
                let (state_directory, socket_directory) = (self.directory.clone(), self.socket_directory.clone());
                return Ok(Kept { state_directory, socket_directory, version, pid });
            }
            () = ended(pid) => format!("{installation} ended while starting"),
            () = sleep(START_MAX) => format!("{installation} did not start within {START_MAX:?}"),
        };
        Err(readiness::failure(&why, &self.log()))
    }

    /// Makes the data directory beside its place, so that a half-made one is never taken for data.
    async fn make_data(&self, account: &Account, installation: &Installation) -> Result<()> {
        let unfinished = self.directory.join("data-unfinished");
        account.remove(&unfinished).await?;
        template::initdb(account, installation, &unfinished, &[]).await?;
        let mut mv = account.command("mv");
        mv.arg(&unfinished).arg(self.data());
        account.run(mv).await.map(|_| ())
    }
}

enum Answer {
    /// Our server, of this version.
    Ours(String),
    /// A server that is not ready, or no longer.
    NotYet,
    /// Nobody, or somebody else.
    None,
}

async fn ended(pid: u32) {
    while processes::is_alive(pid) {
        sleep(PAUSE).await;
    }
}

/// Whether two paths lead to the same directory.
fn same(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

fn default_state_directory(account: &Account) -> Result<PathBuf> {
    if account.steps_down() {
        return Ok(PathBuf::from("/var/lib/doorbell"));
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let state = state.ok_or_else(|| Error::config("there is no home: neither HOME nor XDG_STATE_HOME is set"))?;
    Ok(state.join("doorbell"))
}
