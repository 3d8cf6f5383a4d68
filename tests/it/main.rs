//! The one integration-test binary: one private server, one database per test.

mod bell;
mod breaker;
mod claim;
mod effects;
mod handlers;
mod house_rules;
mod leases;
mod listener;
mod migrations;
mod path;
mod publish;
#[cfg(feature = "server")]
mod restart;
mod seed;
#[cfg(feature = "server")]
mod server;
mod shutdown;
mod support;
