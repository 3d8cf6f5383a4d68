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
mod counters;
mod doctor;
mod effects;
mod examples;
mod explain;
mod failover;
mod follow;
mod front_door;
mod handlers;
mod house_rules;
mod in_transaction;
mod large;
mod latch;
mod leases;
mod lifecycle;
mod list;
mod listener;
mod logs;
mod maintenance;
mod marks;
#[cfg(feature = "metrics")]
mod metrics;
mod migrations;
mod model;
#[cfg(feature = "cli")]
mod operate;
mod path;
mod plans;
mod pooler;
mod proxy;
mod publish;
mod restart;
mod retention;
mod roles;
mod seed;
mod server;
mod shutdown;
mod silence;
mod telemetry;
mod torture;
mod unknown;
#[cfg(feature = "cli")]
mod watch;
