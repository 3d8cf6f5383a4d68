//! Doorbell: a message broker that lives inside PostgreSQL.

mod backoff;
mod broker;
mod connection;
mod consumer;
mod error;
mod handler;
mod message;
pub mod migrate;
mod outcome;
mod process;
mod producer;
mod shutdown;
mod store;
mod wake;

pub use broker::{Broker, BrokerConfig};
pub use connection::Settings;
pub use consumer::{Consumer, ConsumerBuilder, ConsumerConfig};
pub use error::{Error, ErrorKind, Result};
pub use handler::{Handler, HandlerError, HandlerResult, UnknownType};
pub use message::{Delivery, Found, Headers, Message, MessageId};
pub use outcome::Outcome;
pub use producer::Producer;
pub use shutdown::shutdown_signal;
pub use store::{ConsumerRow, TargetStats};
