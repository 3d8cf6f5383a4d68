//! Settling: what becomes of a message once its handler is through.

mod batches;
mod breaker;
mod effects;
mod lifecycle;
mod own_tx;
mod steps;
