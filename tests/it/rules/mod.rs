//! The rules of the house, and that what we print is true.

mod examples;
mod front_door;
mod house;
