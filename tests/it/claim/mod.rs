//! Claiming: who gets what, in which order, and for how long.

mod in_order;
mod keys;
mod leases;
mod order;
mod places;
pub(crate) mod rates;
mod side_by_side;
mod straight;
mod taken;
mod turns;
