//! A private PostgreSQL: the server beneath the demo, the tests, the benchmarks and `doorbell up`.
//!
//! For a test, [`scratch`] is all it takes: a database of its own, in one line.
//!
//! Two lives: a [`Server`] is ephemeral, belongs to this process and vanishes with it, however the process ends; the
//! server behind [`kept`] has its data in the user's state directory and outlives the program.
//!
//! Neither listens on TCP. Both run with the account of the caller, or, because PostgreSQL refuses to run as root, as
//! `postgres` or else `nobody` when the caller is root. The superuser of the database is [`SUPERUSER`]; it needs no
//! password, because only the owner of the socket's directory (mode 0700) can reach the socket.

#![warn(clippy::unwrap_used)]
// Which feature an item needs is said beside it, where nightly makes the documentation.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod account;
mod cache;
mod directory;
mod ephemeral;
mod error;
mod fetch;
mod installation;
pub mod kept;
mod processes;
mod readiness;
mod scratch;
mod template;
#[cfg(feature = "trial")]
mod trial;
mod watchdog;

use std::path::Path;

pub use ephemeral::{EphemeralOptions, Server, Shutdown};
pub use error::{Error, ErrorKind, Result};
pub use fetch::{Consent, FetchOptions};
pub use installation::{Installation, MAJOR_MIN};
pub use scratch::scratch;
#[cfg(feature = "trial")]
pub use trial::Trial;

/// The database superuser of every private server; trusted without a password on its private socket.
pub const SUPERUSER: &str = "postgres";

/// The port names the socket file; nothing listens on TCP, so all private servers use the same.
const PORT: u16 = 5432;

/// A connection string in libpq's `key=value` form for the server whose socket is in `socket_directory`.
fn connection_string(socket_directory: &Path, database: &str) -> String {
    connection_string_as(socket_directory, SUPERUSER, database)
}

fn connection_string_as(socket_directory: &Path, user: &str, database: &str) -> String {
    let host = quoted(&socket_directory.to_string_lossy());
    format!("host={host} port={PORT} user={} dbname={}", quoted(user), quoted(database))
}

/// The same as a URI. The socket's directory is no host that a URI could have before its path, so it is a parameter.
fn uri(socket_directory: &Path, user: &str, database: &str) -> String {
    let host = encoded(&socket_directory.to_string_lossy());
    format!("postgresql:///{}?host={host}&port={PORT}&user={}", encoded(database), encoded(user))
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

/// A value as libpq reads it back: bare where nothing in it could end it early.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_survive_the_connection_string() {
        let text = connection_string(Path::new("/tmp/it's here"), r"back\slash");
        let config: tokio_postgres::Config = text.parse().unwrap();
        assert_eq!(config.get_dbname(), Some(r"back\slash"));
        assert_eq!(config.get_hosts(), [tokio_postgres::config::Host::Unix("/tmp/it's here".into())]);
    }
}
