//! A server that belongs to this process and vanishes with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::account::Account;
use super::directory::{Place, Run};
use super::fetch::{Consent, find_or_fetch};
use super::installation::Installation;
use super::watchdog::{self, State, Watchdog};
use super::{processes, readiness, template};
use crate::error::{Error, ErrorKind, Result};

/// A start that replays a long log after a crash on a slow disk is the slowest that is still a start.
const START_MAX: Duration = Duration::from_secs(60);

/// Longer than the watchdog takes for all its steps.
const STOP_MAX: Duration = Duration::from_secs(60);

/// How often the table of processes is read while waiting for killed ones.
const PAUSE: Duration = Duration::from_millis(5);

/// How an ephemeral server is to be.
#[derive(Clone, Debug)]
pub struct EphemeralOptions {
    /// Whether commits survive a crash of the machine, as in production. Needed to measure speed honestly and to test
    /// crashes of the server; the data is then on disk, otherwise in memory where possible. Default: false.
    pub durable: bool,
    /// The server's `max_connections`. Default: 200.
    pub max_connections: u32,
    /// More settings, as in `postgresql.conf`; they win over all others. A bad one makes the start fail with the
    /// server's own words. Default: none.
    pub settings: Vec<(String, String)>,
    /// The directory below which the server's own directory is made; must exist, be open to the server's account and
    /// have a short path, as sockets need it. Default: shared memory or the system's temporary directory; for durable
    /// servers `/var/tmp`.
    pub directory: Option<PathBuf>,
    /// The directory of the server's programs, before `DOORBELL_PG_BINDIR` and all that is installed. Default: none.
    pub bin_directory: Option<PathBuf>,
    /// Whether a PostgreSQL may be fetched when none is installed. Default: no.
    pub consent: Consent,
}

impl Default for EphemeralOptions {
    fn default() -> Self {
        Self {
            durable: false,
            max_connections: 200,
            settings: Vec::new(),
            directory: None,
            bin_directory: None,
            consent: Consent::No,
        }
    }
}

/// How a restart ends the running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Open transactions are rolled back and the data is written: the orderly way.
    Fast,
    /// All server processes end at once, as in a crash; the next start replays the log.
    Immediate,
}

/// A private PostgreSQL that lives as long as this value, and no longer than this process.
///
/// Dropping it has the server stopped and its files removed, without waiting; [`stop`](Self::stop) waits. A watchdog
/// process does the same when this process ends in whatever way, `kill -9` included. Ctrl-C on the terminal does not
/// reach the server, so the program can finish its work first.
#[derive(Debug)]
pub struct Server {
    installation: Installation,
    directory: PathBuf,
    watchdog: Watchdog,
    /// Those stopped by [`pause`](Self::pause).
    paused: Vec<u32>,
}

impl Server {
    /// Starts a server and waits until it accepts connections: about a second for the first of a version, then 0.1 s.
    ///
    /// Any number of processes may start servers at the same time. Cancelling leaves nothing behind but, at worst,
    /// a directory that the next start removes.
    ///
    /// # Errors
    /// Those of [`Installation::find`] and [`Installation::fetch`]; [`Io`](ErrorKind::Io) with the end of the server's log when it does not start.
    pub async fn ephemeral(options: EphemeralOptions) -> Result<Self> {
        let bin_directory = options.bin_directory.clone();
        let search = move || Installation::find(bin_directory.as_deref());
        let installation = find_or_fetch(search, options.consent).await?;
        let account = Account::current()?;
        let place = Place::choose(&account, options.directory.as_deref(), options.durable).await?;
        let run = {
            let _alone = place.lock().await?;
            place.sweep().await;
            place.new_run().await?
        };
        let wal_mb = if options.durable { template::WAL_MB_NORMAL } else { template::WAL_MB_SMALL };
        template::copy(&place, &installation, wal_mb, &run.directory.join("data")).await?;

        let Run { directory, log } = run;
        let mut command = watchdog::command(&account, &directory)?;
        command.arg(installation.program("postgres"));
        command.arg("-D").arg(directory.join("data")).arg("-k").arg(&directory);
        for (name, value) in settings(&options) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let watchdog = Watchdog::start(command, log)?;
        let server = Self { installation, directory, watchdog, paused: Vec::new() };
        server.ready().await?;
        Ok(server)
    }

    /// The string to connect to a database of this server with, in libpq's `key=value` form.
    ///
    /// A new server has the database `postgres`; the user is [`SUPERUSER`](super::SUPERUSER).
    pub fn connection_string(&self, database: &str) -> String {
        super::connection_string(&self.directory, database)
    }

    /// The server's version, such as `17.5`.
    pub fn version(&self) -> &str {
        self.installation.version()
    }

    /// The programs this server runs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The directory of the server's socket, data and log; removed with the server.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The process id of the postmaster; nothing while the server is down.
    pub fn pid(&self) -> Option<u32> {
        match self.watchdog.state() {
            State::Running(pid) => Some(pid),
            _ => None,
        }
    }

    /// Ends the server and starts it again on the same data and the same socket; waits until it accepts connections.
    ///
    /// Cancelled, the server may be left down; [`start_again`](Self::start_again) then starts it.
    pub async fn restart(&mut self, shutdown: Shutdown) -> Result<()> {
        self.resume();
        if let Some(pid) = self.pid() {
            let signal = match shutdown {
                Shutdown::Fast => Signal::SIGINT,
                Shutdown::Immediate => Signal::SIGQUIT,
            };
            processes::signal(pid, signal);
            self.ended().await?;
        }
        self.start_again().await
    }

    /// Kills the postmaster and all its children, as a crash would, and waits until none is left.
    ///
    /// Does nothing when the server is down.
    pub async fn kill(&mut self) -> Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        // Stopped first, so that it has no new children while they are counted.
        processes::signal(pid, Signal::SIGSTOP);
        let mut victims = processes::children(pid);
        victims.push(pid);
        for &victim in &victims {
            processes::signal(victim, Signal::SIGKILL);
        }
        self.paused.clear();
        self.ended().await?;
        let deadline = Instant::now() + STOP_MAX;
        while victims.iter().any(|&victim| processes::is_alive(victim)) {
            if Instant::now() > deadline {
                return Err(Error::new(ErrorKind::Timeout, "killed server processes are still there"));
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Starts a server that is down and waits until it accepts connections. Does nothing when it runs.
    pub async fn start_again(&mut self) -> Result<()> {
        if let State::Ended(_) = self.watchdog.state() {
            self.watchdog.start_again()?;
            let begun = |state: &State| !matches!(state, State::Ended(_));
            self.watchdog.wait_for("start again", START_MAX, begun).await?;
        }
        self.ready().await
    }

    /// Stops all processes of the server where they are: connections stay open and nothing answers any more.
    ///
    /// Does nothing when the server is down or paused.
    pub fn pause(&mut self) {
        let Some(pid) = self.pid().filter(|_| self.paused.is_empty()) else { return };
        processes::signal(pid, Signal::SIGSTOP);
        self.paused.push(pid);
        self.paused.extend(processes::children(pid));
        for &child in &self.paused[1..] {
            processes::signal(child, Signal::SIGSTOP);
        }
    }

    /// Lets a paused server go on. Does nothing otherwise.
    pub fn resume(&mut self) {
        for process in self.paused.drain(..).rev() {
            processes::signal(process, Signal::SIGCONT);
        }
    }

    /// Stops the server, removes its files and waits until that is done.
    ///
    /// Cancelled, it still happens.
    pub async fn stop(self) -> Result<()> {
        let gone = self.watchdog.gone(STOP_MAX);
        drop(self);
        gone.await.map(|_| ())
    }

    /// Waits until the server that was just started accepts connections.
    async fn ready(&self) -> Result<()> {
        let begun = |state: &State| *state != State::Starting;
        let failed = match self.watchdog.wait_for("start", START_MAX, begun).await? {
            State::Running(pid) => {
                let ended = self.watchdog.wait_for("start", START_MAX, |state| !matches!(state, State::Running(_)));
                let data = self.directory.join("data");
                tokio::select! {
                    () = readiness::ready(&data, pid) => return Ok(()),
                    ended = ended => ended,
                }
            }
            state => Ok(state),
        };
        let why = match failed {
            Ok(State::Ended(status)) => format!("{} ended with status {status} while starting", self.installation),
            Ok(_) => "the server's watchdog ended".to_owned(),
            Err(late) => late.to_string(),
        };
        Err(readiness::failure(&why, &self.directory.join("log")))
    }

    async fn ended(&self) -> Result<()> {
        self.watchdog.wait_for("end", STOP_MAX, |state| !matches!(state, State::Running(_))).await.map(|_| ())
    }
}

impl Drop for Server {
    /// Only lets a paused server go on: closing the watchdog's pipe, which follows, does the rest.
    fn drop(&mut self) {
        self.resume();
    }
}

/// The server's settings in the order in which later ones win.
fn settings(options: &EphemeralOptions) -> Vec<(String, String)> {
    let fixed = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut settings =
        vec![fixed("listen_addresses", ""), fixed("max_connections", &options.max_connections.to_string())];
    if !options.durable {
        settings.extend(["fsync", "synchronous_commit", "full_page_writes"].map(|name| fixed(name, "off")));
        // With small log files `initdb` also chooses a small log, and checkpoints without end.
        settings.push(fixed("max_wal_size", "1GB"));
        // In the data directory instead of the system's shared memory, where a killed server would leave them.
        settings.push(fixed("dynamic_shared_memory_type", "mmap"));
    }
    settings.extend(options.settings.iter().cloned());
    settings
}
