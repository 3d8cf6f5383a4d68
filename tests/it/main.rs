//! The one integration-test binary: one private server, one database per test.

mod breaker;
mod effects;
mod handlers;
mod path;
mod publish;
#[cfg(feature = "server")]
mod server;
mod support;
