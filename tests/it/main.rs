//! The one integration-test binary: one private server, one database per test.

mod breaker;
mod effects;
mod logs;
mod model;
mod path;
mod plans;
mod proxy;
#[cfg(feature = "server")]
mod server;
mod silence;
mod support;
mod torture;
mod unknown;
