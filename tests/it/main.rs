//! The one integration-test binary: one private server, one database per test.

mod breaker;
#[cfg(feature = "cli")]
mod cli;
mod effects;
mod examples;
mod latch;
mod path;
#[cfg(feature = "server")]
mod server;
mod support;
