//! Whether a PostgreSQL may be fetched where none is installed.

use std::io::{IsTerminal, stderr, stdin};

use doorbell::server::Consent;

/// Yes by option; asked on a terminal; else only the environment can say yes (`DOORBELL_FETCH_PG=1`).
pub(crate) fn consent(yes: bool) -> Consent {
    if yes {
        Consent::Yes
    } else if stdin().is_terminal() && stderr().is_terminal() {
        Consent::Ask(ask)
    } else {
        Consent::No
    }
}

fn ask(question: &str) -> bool {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
