//! The library's integration tests, by subject. One binary, one private server, one database per test.

use doorbell_testing::{self as support, logs, proxy};

mod aside;
mod claim;
mod clients;
mod doors;
mod failover;
mod failure;
mod observe;
mod operate;
mod path;
mod pooler;
mod routes;
mod rules;
mod schedules;
mod schema;
mod settle;
mod ui;
mod wake;
