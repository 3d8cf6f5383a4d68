//! Doorbell: a message broker that lives inside PostgreSQL.

mod error;
#[cfg(feature = "server")]
pub mod server;

pub use error::{Error, ErrorKind, Result};
