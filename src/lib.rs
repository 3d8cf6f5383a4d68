//! Doorbell: a message broker that lives inside PostgreSQL.
//!
//! Separate applications integrate through one database. A producer inserts a row into `integration.data_staging`, a
//! trigger rings the bell of the target application, an idle consumer wakes within a millisecond, claims work with one
//! `FOR UPDATE SKIP LOCKED` query, handles it and settles it. Sweeps find what no bell announced.
//!
//! **Promise.** At-least-once: a message whose publishing transaction committed is handled until it is completed, failed
//! for good or cancelled, whatever dies in between. **No promise** of exactly-once: a handler may run again for the same
//! message after a crash, so effects outside the database must be idempotent (the message id is the natural key).
//!
//! ```text
//!  Producer             database                                        Consumer
//!  publish ──▶ data_staging ──▶ trigger ══bell══▶ listener ──▶ claim ──▶ Handler ──▶ complete | retry | reject | snooze
//!                   ▲                    sweep tick ──┘                                  │
//!                   └──────── retry later (backoff) / owner died (rescue) ◀─────────────┘
//! ```
//!
//! ```no_run
//! # #[derive(serde::Serialize, serde::Deserialize)] struct Order { id: u64 }
//! # async fn example() -> Result<(), doorbell::Error> {
//! let broker = doorbell::Broker::from_env().await?;
//! broker.migrate().await?;
//! broker.producer("shop").publish(&doorbell::Message::new("billing", "order.placed", &Order { id: 7 })?).await?;
//! let billing = broker.consumer("billing").on("order.placed", |order: Order, _delivery| async move {
//!     println!("charging order {}", order.id);
//!     Ok(doorbell::Outcome::Done)
//! });
//! billing.run_until(doorbell::shutdown_signal()).await
//! # }
//! ```
//!
//! **Words.** A *message* is published by a *source* for a *target*, with a *record type*. A consumer *claims* it for one
//! *attempt*, and *settles* it: completes, fails (retry by policy), rejects or snoozes. *Failed* is the dead-letter state;
//! *redrive* puts a message back. A process owns its messages by a *lease* it renews; who stops renewing is *rescued* from.
//!
//! **Events** go out through `tracing`, one line per change of state, never a payload or a password.
//!
//! **Where what is.** The root has what a service needs; [`operate`] what operators do, [`observe`] the hooks for metrics and
//! traces, [`migrate`] what is reported of the schema, [`doctor`] what an examination finds.
//!
//! **Features.** `tls` (default): TLS with libpq's meaning of `sslmode`. `metrics`: `observe::Metrics`, for Prometheus.
//! The pages of `doorbell ui`, for a service of yours, are the package `doorbell-ui`.

#![warn(clippy::unwrap_used)]
// Which feature an item needs is said beside it, where nightly makes the documentation.
#![cfg_attr(docsrs, feature(doc_cfg))]

// From the front door down: a module depends on those below it, and a test says so.
pub mod observe;

#[cfg(feature = "metrics")]
mod metrics;

mod broker;

pub mod operate;

pub mod doctor;

mod producer;

mod consumer;
mod handler;
mod shutdown;

mod core;

mod process;

mod maintenance;

pub mod migrate;
mod store;

mod config;
mod telemetry;

mod connection;
mod outage;

mod statement;

mod backoff;

mod alike;

mod rows;

pub mod written;

mod filter;

mod message;
mod outcome;

mod schema;

mod error;

pub use broker::Broker;
pub use config::BrokerConfig;
pub use connection::Settings;
pub use consumer::{Consumer, ConsumerBuilder, ConsumerConfig};
pub use core::Client;
pub use error::{Error, ErrorKind, Result};
pub use handler::{Handler, HandlerError, HandlerResult, TxHandler, UnknownType};
pub use message::{Delivery, Headers, Message, MessageId};
pub use outcome::Outcome;
pub use producer::Producer;
pub use shutdown::shutdown_signal;
pub use statement::Statement;

/// Has the README's programs compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
