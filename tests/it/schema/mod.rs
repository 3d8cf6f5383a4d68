//! The schema itself, and how it comes into a database.

mod migrations;
mod plans;
