//! What consumers in other languages stand on, and what becomes of it there.

mod conformance;
mod driver;
mod languages;
mod pages;
mod publishing;
mod verbs;
mod verbs_of_apps;
