//! Connections with libpq's settings over tokio-postgres.
//!
//! ```text
//! string ─▶ keys (+ service, environment) ─▶ settings ─▶ connect ─▶ socket ─▶ tls ─▶ login ─▶ (Client, Messages) ─▶ pool
//! ```
//!
//! The driver's own configuration is not used: it reads `tcp_user_timeout` in seconds, knows neither `verify-full` nor
//! services nor the environment, and its time limit ends before TLS and login, so that one frozen host in a list would
//! hang the program for ever.

mod settings;

mod environment;
mod host;
mod kept;
mod keys;
mod passfile;
mod secret;
mod service;
mod ssl;
mod string;

mod authentication;
mod connect;
mod deadline;
mod failure;
mod messages;
mod race;
mod role;
mod socket;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;

mod limits;
mod pool;
mod pooler;

#[cfg(test)]
mod tests;

pub(crate) use messages::{Messages, log};
pub(crate) use pool::{Busy, Pool, PoolConfig, Pooled};
pub(crate) use pooler::is_direct;
pub use settings::Settings;
