//! What consumers in other languages stand on, and what becomes of it there.

mod verbs;
mod verbs_of_apps;
