//! The process that ends the programs when this one was killed and could not.
//!
//! Each program runs in a process group of its own, so nothing else would reach it: its message goes to another consumer while
//! it runs on. The guard reads which groups run from a pipe, whose end is the end of this process, however it came.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, Write},
    process::{ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// The hidden command that runs it.
pub(crate) const COMMAND: &str = "exec-guard";

/// What tells the guard.
#[derive(Clone)]
pub(super) struct Guard(Arc<Mutex<ChildStdin>>);

impl Guard {
    /// Starts it, out of reach of what a terminal sends to this process's group, and with nothing of its environment.
    pub(super) fn start() -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(COMMAND).env_clear().process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let pipe = child.stdin.take().ok_or_else(|| io::Error::other("there is no pipe to the guard"))?;
        Ok(Self(Arc::new(Mutex::new(pipe))))
    }

    /// A group runs from now on.
    pub(super) fn watch(&self, group: Pid) {
        self.tell('+', group);
    }

    /// It has ended: its number may belong to somebody else.
    pub(super) fn forget(&self, group: Pid) {
        self.tell('-', group);
    }

    fn tell(&self, sign: char, group: Pid) {
        let mut pipe = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A line at a time is far less than a pipe holds. Without a guard everything else goes on.
        if let Err(error) = writeln!(pipe, "{sign}{group}") {
            tracing::debug!(%error, "the guard of programs is gone");
        }
    }
}

/// The guard: follows its input to the end, then ends the groups that still run.
pub(crate) fn run() -> io::Result<()> {
    let mut groups = BTreeSet::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        match line.parse::<i32>() {
            Ok(group @ 2..) => drop(groups.insert(group)),
            Ok(ended) => drop(groups.remove(&-ended)),
            Err(_) => {}
        }
    }
    for group in groups {
        // Fails where nobody is left.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    Ok(())
}
