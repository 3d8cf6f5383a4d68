//! Settling: what becomes of a message once its handler is through.

mod batches;
mod batches_guarded;
mod breaker;
mod effects;
mod lifecycle;
mod own_tx;
mod steps;
