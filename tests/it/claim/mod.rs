//! Claiming: who gets what, in which order, and for how long.

mod in_transaction;
mod leases;
mod order;
mod places;
mod taken;
