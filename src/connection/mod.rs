//! Connections to the installation: where it is ([`Settings`]), and the pool. How a server is reached, with libpq's meaning
//! of every word, is `doorbell_connection`'s.

mod settings;

mod kept;
mod limits;
mod pool;
mod pooler;

#[cfg(test)]
mod tests;

pub(crate) use doorbell_connection::{Messages, is_direct, log};
pub(crate) use pool::{Busy, Pool, PoolConfig, Pooled};
pub use settings::Settings;
