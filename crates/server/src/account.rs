//! The operating system account a private server runs as.

use std::path::Path;
use std::process::{Command, Stdio};

use std::os::unix::process::CommandExt;

use nix::unistd::{User, geteuid};

use crate::error::{Error, ErrorKind, Result};

/// Whom the server's processes and files belong to.
///
/// Every file of a server is made and removed by processes of this account, never by root on its behalf: a directory
/// that another account may write is no place for root to follow names in.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) uid: u32,
    /// Set when the caller is root and must step down.
    step_down: Option<User>,
}

impl Account {
    /// The caller's own account; for root, which PostgreSQL refuses, `postgres` or else `nobody`.
    pub(super) fn current() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self { uid: geteuid().as_raw(), step_down: None });
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name)
                && !user.uid.is_root()
            {
                return Ok(Self { uid: user.uid.as_raw(), step_down: Some(user) });
            }
        }
        let message = "PostgreSQL refuses to run as root, and there is no account `postgres` or `nobody` to run it as";
        Err(Error::new(ErrorKind::Io, message))
    }

    /// Whether the server runs as somebody else than the caller.
    pub(super) fn steps_down(&self) -> bool {
        self.step_down.is_some()
    }

    /// A command that runs as this account, away from the terminal's Ctrl-C and from the caller's PostgreSQL settings.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        if let Some(user) = &self.step_down {
            // The standard library drops root's supplementary groups together with the user id.
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).env("HOME", "/").env("USER", &user.name);
        }
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        // The working directory may be closed to the account, and on macOS PostgreSQL does not start in a locale that
        // the system does not know.
        command.current_dir("/").env("LC_ALL", "C").process_group(0).stdin(Stdio::null());
        command
    }

    /// Runs a command of this account to its end and returns what it printed; a failure carries what it wrote to its
    /// standard error.
    pub(super) async fn run(&self, command: Command) -> Result<String> {
        let program = Path::new(command.get_program()).to_owned();
        let output = tokio::process::Command::from(command).kill_on_drop(true).output().await.map_err(|e| {
            let whom = self.step_down.as_ref().map(|user| format!(" as {}", user.name)).unwrap_or_default();
            Error::new(ErrorKind::Io, format!("cannot run {}{whom}", program.display())).with_source(e)
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let message = format!("{} ended with {}: {}", program.display(), output.status, said.trim());
        Err(Error::new(ErrorKind::Io, message))
    }

    /// Removes a directory with all it holds; fine when it is not there.
    pub(super) async fn remove(&self, directory: &Path) -> Result<()> {
        let mut rm = self.command("rm");
        rm.arg("-rf").arg(directory);
        self.run(rm).await.map(|_| ())
    }
}
