//! A program that handles messages: what it is called, and what it gets of our environment.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::exit::{Exit, Failure};

/// A program and its arguments.
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Environment,
}

/// What a program gets of our own environment.
pub(super) struct Environment {
    /// Nothing but what is named.
    pub(super) cleared: bool,
    /// This in any case.
    pub(super) named: Vec<String>,
}

impl Program {
    /// Its command, which knows of no message yet.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments);
        self.environment.hand_on(&mut command);
        // A group of its own: Ctrl-C reaches us alone, and a kill reaches all of its children.
        command.process_group(0).stdin(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Fails where there is no such program now, before any message is taken for it.
    pub(super) fn must_be_there(&self) -> Result<(), Failure> {
        let names_file = self.path.components().count() > 1 || self.path.is_absolute();
        let found = if names_file { is_program(&self.path) } else { self.on_the_path() };
        found.map_err(|error| self.cannot_run(&error))
    }

    fn on_the_path(&self) -> io::Result<()> {
        let has_path = !self.environment.cleared || self.environment.named.iter().any(|name| name == "PATH");
        let path = std::env::var_os("PATH").filter(|_| has_path).unwrap_or_else(|| "/bin:/usr/bin".into());
        let mut found = std::env::split_paths(&path).map(|directory| is_program(&directory.join(&self.path)));
        match found.find(Result::is_ok) {
            Some(found) => found,
            None => Err(io::Error::new(ErrorKind::NotFound, "there is no such program on the PATH")),
        }
    }

    pub(super) fn cannot_run(&self, error: &io::Error) -> Failure {
        Failure::new(Exit::Usage, format!("cannot run {}: {error}", self.path.display()))
    }
}

fn is_program(path: &Path) -> io::Result<()> {
    let about = std::fs::metadata(path)?;
    if about.is_dir() {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "it is a directory"));
    }
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).map_err(io::Error::from)
}

impl Environment {
    fn hand_on(&self, command: &mut Command) {
        if self.cleared {
            command.env_clear();
        }
        for (name, value) in std::env::vars_os() {
            let bytes = name.as_encoded_bytes();
            if self.named.iter().any(|named| named.as_bytes() == bytes) {
                command.env(name, value);
            } else if bytes.starts_with(b"PG") || bytes == b"DATABASE_URL" || bytes == b"DOORBELL_DATABASE_URL" {
                // What handles a message has no business in the database that holds all of them.
                command.env_remove(name);
            }
        }
    }
}
