//! `doorbell completions`: the tab key.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{
    Cli,
    exit::{Exit, Failure},
    output,
};

/// Print a completion script for your shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  source <(doorbell completions bash)
  doorbell completions zsh > ~/.zfunc/_doorbell
  doorbell completions fish > ~/.config/fish/completions/doorbell.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        // Into memory first: the generator panics when its reader has left.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "doorbell", &mut script);
        output::line(String::from_utf8_lossy(&script).trim_end())?;
        Ok(Exit::Done)
    }
}
