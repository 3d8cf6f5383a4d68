//! What is measured: one function per scenario, each on a [`Lab`](crate::Lab) and with an [`Effort`](crate::measure::Effort).
//! They leave the messages of the lab's database deleted.

mod backlog;
mod cost;
mod drain;
mod fleet;
mod keys;
mod load;
mod publish;
mod reads;
mod routes;
mod schema;
mod wake;

pub use backlog::{backlog, pinned};
pub use drain::{drain, held_drain, tx_drain};
pub use fleet::{fleet, idle};
pub use keys::keys;
pub use load::latency;
pub use publish::{bulk, publish};
pub use reads::reads;
pub use routes::{capture, fanout, request};
pub use schema::schema;
pub use wake::wake;
