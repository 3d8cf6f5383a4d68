//! The tests of the program. One binary, one private server, one database per test.

mod advice;
mod bench;
mod consume;
mod database;
mod demo;
mod exec;
mod extract;
mod fields;
mod help;
mod large;
mod list;
mod live;
mod many;
mod names;
mod night;
mod operators;
mod packaging;
mod pooler;
mod program;
mod publish;
mod stats;
mod steering;
mod terminal;
mod transcripts;
mod ui;
mod watch;
