//! The program `doorbell`: the library on the command line. Everything is in [`cli`].

#![warn(clippy::unwrap_used)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
