//! Asking before something is done that cannot be undone in a moment.

use std::io::{IsTerminal, stderr, stdin};

use doorbell_server::Consent;

/// Whether a PostgreSQL may be fetched where none is installed. Yes by option; asked on a terminal; else only the environment can say yes (`DOORBELL_FETCH_PG=1`).
pub(crate) fn consent(yes: bool) -> Consent {
    if yes {
        Consent::Yes
    } else if can_ask() {
        Consent::Ask(ask)
    } else {
        Consent::No
    }
}

/// Whether somebody is there to answer.
pub(crate) fn can_ask() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Asks on the terminal; only "y" and "yes" are a yes.
pub(crate) fn ask(question: &str) -> bool {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
