//! What is where in a state directory, and whether its server runs.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::server::{Kept, KeptOptions};
use crate::account::Account;
use crate::directory::{check_socket_length, private};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::find_or_fetch;
use crate::installation::Installation;
use crate::readiness::{self, Status};
use crate::{connection_string, processes, template};

/// A start that replays a long log after a crash on a slow disk is the slowest that is still a start.
const START_MAX: Duration = Duration::from_secs(120);

/// How long a process that looks like the server may be silent before it is taken for another one.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Runs `"$@"` on its own and prints its process id; the shell's end makes it a child of the system's first process,
/// so nobody has to wait for it.
const DETACH: &str = r#""$@" </dev/null >>"$0" 2>&1 & echo "$!""#;

/// The state directory and what is where in it.
pub(super) struct State {
    pub(super) directory: PathBuf,
    pub(super) socket_directory: PathBuf,
}

impl State {
    pub(super) fn new(options: &KeptOptions, account: &Account) -> Result<Self> {
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
    pub(super) async fn find(&self) -> Result<Option<Kept>> {
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
                Answer::NotYet | Answer::None => sleep(processes::PAUSE).await,
            }
        }
        Ok(None)
    }

    /// Asks whoever listens on the socket.
    async fn ask(&self) -> Answer {
        let target = connection_string(&self.socket_directory, "postgres");
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
    pub(super) async fn start(&self, account: &Account, options: &KeptOptions) -> Result<Kept> {
        let major = self.data_major();
        let bin_directory = options.bin_directory.clone();
        let search = move || Installation::find_for_data(bin_directory.as_deref(), major);
        let installation = find_or_fetch(search, options.consent).await?;
        major.map_or(Ok(()), |major| installation.check_reads(major))?;
        if !self.data().is_dir() {
            self.make_data(account, &installation).await?;
        }
        if self.socket_directory != self.directory {
            private(account, self.socket_directory.parent().unwrap_or(&self.socket_directory)).await?;
            private(account, &self.socket_directory).await?;
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
            () = processes::ended(pid) => format!("{installation} ended while starting"),
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
