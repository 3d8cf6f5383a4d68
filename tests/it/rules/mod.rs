//! The rules of the house, and that what we print is true.

mod arrows;
mod examples;
mod front_door;
mod house;
mod loops;
mod weight;
mod words;
