//! Connections to PostgreSQL with the meaning that its own client library, libpq, gives to every word, over tokio-postgres.
//!
//! ```text
//! string ─▶ keys (+ service, environment) ─▶ settings ─▶ connect ─▶ socket ─▶ tls ─▶ login ─▶ (Client, Messages)
//! ```
//!
//! The driver's own configuration is not used: it reads `tcp_user_timeout` in seconds, knows neither `verify-full` nor
//! services nor the environment, and its time limit ends before TLS and login, so that one frozen host in a list would
//! hang the program for ever.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = doorbell_connection::Settings::parse("service=orders target_session_attrs=primary")?;
//! let (client, messages) = settings.connect().await?;
//! tokio::spawn(messages.drain());
//! let one = client.query_one("select 1", &[]).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Made for Doorbell, a message broker inside PostgreSQL, and knows nothing of it. Without the feature `tls` (on unless
//! switched off), connections that need TLS are refused.

#![warn(clippy::unwrap_used)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod settings;

mod connect;
mod race;
mod role;

mod backend;
mod messages;

mod keys;
mod service;
mod ssl;
mod string;

mod authentication;
mod host;
mod passfile;
mod secret;
mod socket;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;

mod deadline;
mod failure;

mod environment;
mod error;

#[cfg(test)]
mod tests;

pub use backend::{announced, is_direct};
pub use environment::{Environment, Given, Process};
pub use error::{Error, ErrorKind, Result, Source};
pub use messages::{Messages, log};
pub use settings::Settings;
