//! The program `doorbell`: the library on the command line. Everything is in [`cli`].

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
