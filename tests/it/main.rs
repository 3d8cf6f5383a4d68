//! The one integration-test binary.

#[cfg(feature = "server")]
mod server;
