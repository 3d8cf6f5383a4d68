//! A message broker inside your PostgreSQL: a producer inserts a row, a trigger rings, an idle consumer wakes, claims
//! the message and handles it; what dies on the way is handled by another.
//!
//! There is nothing to run beside the database. Publishing is part of *your* transaction, so an order and the message
//! about it appear together or not at all; and a handler's effects can commit together with the end of its message.
//! Whoever can INSERT can publish, in any language.
//!
//! # Quick start
//!
//! ```toml
//! [dependencies]
//! doorbell = "0.1"
//! serde = { version = "1", features = ["derive"] }
//! tokio = { version = "1", features = ["full"] }
//! ```
//!
//! The whole program; `DATABASE_URL` names a database in which you may create a schema (PostgreSQL 15 or newer;
//! `doorbell up`, of the package `doorbell-cli`, starts a private one).
//!
//! ```no_run
//! use doorbell::{Broker, Delivery, Message, Outcome};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order {
//!     id: u64,
//!     cents: u64,
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), doorbell::Error> {
//!     let broker = Broker::from_env().await?;
//!     broker.migrate().await?; // makes the schema, or changes nothing
//!
//!     let shop = broker.producer("shop");
//!     shop.publish(&Message::new("billing", "order.placed", &Order { id: 7, cents: 1250 })?).await?;
//!
//!     let billing = broker.consumer("billing").on("order.placed", |order: Order, delivery: Delivery| async move {
//!         if order.cents == 0 {
//!             return Ok(Outcome::reject("nothing to charge")); // never again: it is kept, with the reason
//!         }
//!         println!("charging {} cents for order {}, attempt {}", order.cents, order.id, delivery.attempt);
//!         Ok(Outcome::Done) // an Err would be tried again later
//!     });
//!     billing.run_until(doorbell::shutdown_signal()).await?; // Ctrl-C or SIGTERM: what runs is finished first
//!     broker.close().await;
//!     Ok(())
//! }
//! ```
//!
//! ## In your own transaction
//!
//! [`Producer::publish_in`] takes a transaction, the pool's or one of a tokio-postgres connection of yours. With
//! another driver (SQLx, SeaORM, Diesel) a message is one SQL text with one value: [`Message::statement`].
//!
//! ```no_run
//! # async fn example(broker: doorbell::Broker, order: serde_json::Value) -> Result<(), doorbell::Error> {
//! let mut client = broker.client().await?;
//! let tx = client.transaction().await?;
//! tx.execute("insert into orders values ($1)", &[&order]).await?;
//! broker.producer("shop").publish_in(&tx, &doorbell::Message::new("billing", "order.placed", &order)?).await?;
//! tx.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! ## Effects exactly once
//!
//! A handler set with [`on_tx`](ConsumerBuilder::on_tx) gets the transaction that completes its message. With another
//! driver, [`on_own_tx`](ConsumerBuilder::on_own_tx) gives it the statement that does.
//!
//! ```no_run
//! # async fn example(broker: doorbell::Broker) -> Result<(), doorbell::Error> {
//! let ledger = broker.consumer("ledger").on_tx("order.placed", |order: serde_json::Value, _, tx| {
//!     Box::pin(async move {
//!         tx.execute("insert into entries (item) values ($1)", &[&order]).await?;
//!         Ok(doorbell::Outcome::Done)
//!     })
//! });
//! ledger.run_until(doorbell::shutdown_signal()).await
//! # }
//! ```
//!
//! # What is guaranteed
//!
//! - **At least once.** A message whose transaction committed is handled until it is completed, failed for good or
//!   cancelled, whichever process dies in between. What fails is retried with backoff; what fails for good stays, with
//!   its reason.
//! - **Perhaps twice.** When a consumer dies between its effect and the end of its message, another handles it again.
//!   Effects in the same database, written through `on_tx`, are there exactly once; all others should be idempotent,
//!   with [`Delivery::id`] as their key.
//! - **Nothing hangs on notifications.** They are hints: every consumer also looks by itself, every 5 seconds unless
//!   told otherwise.
//! - **In order, of each key.** Messages with an [ordering key](Message::ordering_key) are handled one at a time of
//!   each key.
//! - **What PostgreSQL can lose.** An acknowledged publish survives what a commit survives, as `synchronous_commit`
//!   says.
//!
//! # Where what is
//!
//! | | |
//! |---|---|
//! | [`Broker`], [`BrokerConfig`], [`Settings`] | the handle to one database, and how it is connected to |
//! | [`Message`], [`Producer`], [`Statement`] | publishing: by itself, in a transaction, many at once, with another driver |
//! | [`Consumer`], [`ConsumerBuilder`], [`ConsumerConfig`] | consuming: handlers by record type, concurrency, retries, draining |
//! | [`Delivery`], [`Outcome`], [`HandlerError`] | what a handler gets, and says: done, retry, snooze, reject |
//! | [`Error`], [`ErrorKind`] | what went wrong, and whose turn it is |
//! | [`operate`], [`doctor`] | what operators do: list, explain, redrive, pause, topics, schedules; examine |
//! | [`observe`], [`migrate`] | hooks for metrics and traces; what is reported of the schema |
//!
//! Events go out through `tracing`, one line per change of state, never a payload or a password.
//!
//! # Features
//!
//! | | |
//! |---|---|
//! | `tls` (default) | TLS by rustls, with libpq's meaning of `sslmode`; without it, connections that need TLS are refused |
//! | `metrics` | `observe::Metrics`, for Prometheus |
//!
//! Other packages: `doorbell-cli` has the program `doorbell`, `doorbell-ui` its pages as a router for axum,
//! `doorbell-server` a private PostgreSQL for your tests; `doorbell-connection` is how a server is reached, `doorbell-schema` the SQL.
//!
//! # Words
//!
//! A *message* is published by a *source* for a *target*, with a *record type*. A consumer *claims* it for one
//! *attempt*, and *settles* it: completes, fails (retry by policy), rejects or snoozes. *Failed* is the dead-letter
//! state; *redrive* puts a message back. A process owns its messages by a *lease* it renews; who stops renewing is
//! *rescued* from. The oldest Rust is 1.89.
//!
//! The repository has the guide, in `docs/`: a tutorial of one sitting, how it works, other drivers, ordering, topics,
//! schedules, deploying, operations, and what happens in each failure.

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
pub use handler::{
    Batch, BatchHandler, BatchOutcome, BatchResult, BatchTxHandler, Handler, HandlerError, HandlerResult, Replier,
    Steps, TxHandler, UnknownType,
};
pub use message::{Answer, Delivery, Headers, Message, MessageId, Request};
pub use outcome::Outcome;
pub use producer::Producer;
pub use shutdown::shutdown_signal;
pub use statement::Statement;

/// Has the README's programs compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
