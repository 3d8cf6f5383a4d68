//! The one integration-test binary: one private server, one database per test.

mod support;

mod bad_data;
mod bell;
#[cfg(feature = "cli")]
mod bench;
mod breaker;
mod claim;
#[cfg(feature = "cli")]
mod cli;
mod effects;
mod examples;
mod handlers;
mod house_rules;
mod latch;
mod leases;
mod listener;
mod logs;
mod migrations;
mod model;
#[cfg(feature = "cli")]
mod operate;
mod path;
mod plans;
mod proxy;
mod publish;
mod restart;
mod seed;
mod server;
mod shutdown;
mod silence;
mod torture;
mod unknown;
