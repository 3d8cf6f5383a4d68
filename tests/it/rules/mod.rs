//! The rules of the house, and that what we print is true.

mod arrows;
pub(crate) mod examples;
mod front_door;
mod house;
mod loops;
mod versions;
mod weight;
mod words;
