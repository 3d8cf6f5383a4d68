//! What consumers in other languages stand on, and what becomes of it there.

mod conformance;
mod driver;
pub(crate) mod languages;
mod pages;
mod pooled;
mod publishing;
mod verbs;
mod verbs_of_apps;
