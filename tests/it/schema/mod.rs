//! The schema itself, and how it comes into a database.

mod adopt;
mod called;
mod code;
mod facts;
mod hostile;
mod installations;
mod migrations;
mod plans;
mod reference;
mod untyped;
mod upgrade;
