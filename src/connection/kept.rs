//! The server of `doorbell up`, for programs that nobody told of another one.

use std::path::PathBuf;

use doorbell_connection::Environment;

/// Any of these chooses a server or database; others (PGSSLMODE, PGAPPNAME, …) only say how to talk to it.
const CHOOSING: [&str; 8] =
    ["DOORBELL_DATABASE_URL", "DATABASE_URL", "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"];

/// What `doorbell up` leaves in its state directory while the server is meant to run: a connection string.
const FILE: &str = "application";

/// Whether a variable chooses one.
pub(super) fn is_chosen(environment: &dyn Environment) -> bool {
    CHOOSING.iter().any(|name| environment.raw(name).is_some_and(|value| !value.is_empty()))
}

/// The connection string for applications; `None`: none is up, as far as this user may know.
pub(super) fn connection_string(environment: &dyn Environment) -> Option<String> {
    let directory = |name| environment.raw(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = directory("XDG_STATE_HOME").or_else(|| Some(environment.home()?.join(".local/state")));
    let places = [
        directory("DOORBELL_STATE_DIRECTORY"),
        state.map(|state| state.join("doorbell")),
        // Root's, whose home the server's account cannot enter.
        Some(PathBuf::from("/var/lib/doorbell")),
    ];
    let texts = places.into_iter().flatten().filter_map(|place| std::fs::read_to_string(place.join(FILE)).ok());
    texts.map(|text| text.trim().to_owned()).find(|text| !text.is_empty())
}
