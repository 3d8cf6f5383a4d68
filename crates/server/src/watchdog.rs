//! The process between this one and PostgreSQL that outlives this one just long enough to put everything away.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::account::Account;
use super::directory::new_file;
use crate::error::{Error, ErrorKind, Result};

/// The whole program of the watchdog; it needs nothing but a POSIX shell.
const SCRIPT: &str = include_str!("watchdog.sh");

/// The command that watches over a run; the server's own command line is to be appended.
///
/// The script is put into the run's directory, so that a listing of processes stays readable.
pub(super) fn command(account: &Account, run: &Path) -> Result<Command> {
    let script = run.join("watchdog.sh");
    let failed = |e| Error::new(ErrorKind::Io, "cannot write the server's watchdog").with_source(e);
    new_file(&script)?.write_all(SCRIPT.as_bytes()).map_err(failed)?;
    let mut command = account.command("/bin/sh");
    command.arg(script).arg(run);
    Ok(command)
}

/// A running watchdog. Dropping it closes the pipe, which is the watchdog's order to stop the server and clean up.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Held for its closing as much as for writing.
    pipe: ChildStdin,
    state: watch::Receiver<State>,
}

/// What the watchdog last reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The server is to be started.
    Starting,
    /// The postmaster runs under this process id.
    Running(u32),
    /// The server ended, with the status a shell gives it: 128 and more for a signal.
    Ended(String),
    /// The watchdog itself is gone, and with it everything it watched.
    Gone,
}

impl Watchdog {
    /// Starts the watchdog with a completed [`command`]; all its processes write to `log`.
    ///
    /// Its reports are read by a thread of their own: the server may be used from a runtime other than the one that
    /// started it, and the thread also waits for the ended process.
    pub(super) fn start(mut command: Command, log: File) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|e| Error::new(ErrorKind::Io, "cannot start the server's watchdog").with_source(e))?;
        let (pipe, reports) = child.stdin.take().zip(child.stdout.take()).expect("both were asked for as pipes");
        let (sender, state) = watch::channel(State::Starting);
        let follow = move || {
            for line in BufReader::new(reports).lines().map_while(std::io::Result::ok) {
                let _ = match line.split_once(' ') {
                    Some(("started", pid)) => sender.send(pid.parse().map_or(State::Gone, State::Running)),
                    Some(("exited", status)) => sender.send(State::Ended(status.to_owned())),
                    _ => Ok(()),
                };
            }
            let _ = child.wait();
            let _ = sender.send(State::Gone);
        };
        let thread = std::thread::Builder::new().name("doorbell-watchdog".to_owned());
        thread.spawn(follow).map_err(|e| Error::new(ErrorKind::Io, "cannot start a thread").with_source(e))?;
        Ok(Self { pipe, state })
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until the report fits and returns it; `what` names the wait when `within` has passed.
    pub(super) async fn wait_for(&self, what: &str, within: Duration, fits: fn(&State) -> bool) -> Result<State> {
        wait_for(self.state.clone(), what, within, fits).await
    }

    /// Starts the ended server again.
    pub(super) fn start_again(&mut self) -> Result<()> {
        self.pipe.write_all(b"again\n").map_err(|e| Error::new(ErrorKind::Io, "the watchdog is gone").with_source(e))
    }

    /// Resolves when everything is put away, which dropping the watchdog has begun.
    pub(super) fn gone(&self, within: Duration) -> impl Future<Output = Result<State>> + use<> {
        wait_for(self.state.clone(), "stop", within, |state| *state == State::Gone)
    }
}

async fn wait_for(
    mut state: watch::Receiver<State>,
    what: &str,
    within: Duration,
    fits: fn(&State) -> bool,
) -> Result<State> {
    match timeout(within, state.wait_for(fits)).await {
        Ok(Ok(state)) => Ok(state.clone()),
        // The thread that reports is gone only after it said so.
        Ok(Err(_)) => Ok(State::Gone),
        Err(_) => Err(Error::new(ErrorKind::Timeout, format!("the server did not {what} within {within:?}"))),
    }
}
