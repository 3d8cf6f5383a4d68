//! The one integration-test binary: one private server, one database per test.

mod breaker;
mod effects;
mod latch;
mod examples;
mod path;
#[cfg(feature = "server")]
mod server;
mod support;
