//! Errors of a measurement as the program reports all others.

use crate::exit::{Exit, Failure};

/// Errors of a measurement as the program reports all others.
pub(super) fn failure(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    match error.downcast::<doorbell::Error>() {
        Ok(error) => Failure::from(*error),
        Err(error) => match error.downcast::<tokio_postgres::Error>() {
            Ok(error) => Failure::from(doorbell::Error::from(*error)),
            Err(error) => Failure::new(Exit::Failed, error.to_string()),
        },
    }
}
