//! Behind PgBouncer. What it takes to have one is in `doorbell-testing`; the program's side is among the program's tests.

mod session;
mod transaction;
