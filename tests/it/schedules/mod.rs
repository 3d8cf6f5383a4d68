//! What is published again and again: when, and that it is once.

mod cron;
mod firing;
