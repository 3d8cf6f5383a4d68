//! Doorbell: a message broker that lives inside PostgreSQL.

mod error;

pub use error::{Error, ErrorKind, Result};
