//! What fails: data, connections, servers, processes, and all of them at once.

mod bad_data;
mod model;
mod restart;
mod silence;
mod torture;
mod unknown;
