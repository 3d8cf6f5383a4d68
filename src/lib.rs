//! Doorbell: a message broker that lives inside PostgreSQL.

mod connection;
mod error;

pub use connection::Settings;
pub use error::{Error, ErrorKind, Result};
