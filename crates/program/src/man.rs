//! `doorbell man`: manual pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::{
    Cli,
    exit::{Exit, Failure},
};

/// Write a manual page for each command
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell man /usr/local/share/man/man1
  doorbell man . && man ./doorbell-consume.1")]
pub(crate) struct Man {
    /// A directory that is there; pages of the same names are replaced
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        clap_mangen::generate_to(Cli::command(), &self.directory)
            .map_err(|error| Failure::from(error).context(format!("cannot write to {}", self.directory.display())))?;
        Ok(Exit::Done)
    }
}
