//! What a program that handles messages could read of the process that started it: passwords.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use tracing::warn;

/// From now on no process of the same user may read our environment or our memory (on Linux; root may). It is not inherited
/// by what we start.
pub(super) fn environment() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        warn!(%error, "the programs that handle messages can read this process's environment");
    }
}

/// Moves the address of the database from the arguments, which every user of the machine can read with ps, into the
/// environment: by running this program again, as the same process. Returns only where that cannot be done.
pub(crate) fn arguments(url: &str) {
    let mut all = std::env::args_os();
    let name = all.next().unwrap_or_default();
    let error = match std::env::current_exe() {
        Ok(program) => Command::new(program).arg0(name).args(without_url(all)).env("DOORBELL_DATABASE_URL", url).exec(),
        Err(error) => error,
    };
    warn!(%error, "everybody on this machine can read the database's address in this program's arguments");
}

fn without_url(all: impl Iterator<Item = OsString>) -> Vec<OsString> {
    const OPTION: &str = "--database-url";
    let mut kept = Vec::new();
    let mut all = all.into_iter();
    while let Some(argument) = all.next() {
        if argument == "--" {
            kept.push(argument);
            kept.extend(all);
            break;
        }
        if argument == OPTION {
            all.next();
        } else if !argument.as_encoded_bytes().starts_with(b"--database-url=") {
            kept.push(argument);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_is_taken_out_of_the_arguments() {
        let without = |text: &str| {
            let kept = without_url(text.split(' ').map(OsString::from));
            kept.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(without("--database-url a consume billing --exec cat"), "consume billing --exec cat");
        assert_eq!(without("consume billing --database-url=a --exec cat"), "consume billing --exec cat");
        assert_eq!(without("consume --exec cat -- --database-url"), "consume --exec cat -- --database-url");
    }
}
