//! The path of a message, from whoever publishes it to the handler.

mod handlers;
mod main_path;
mod mappings;
mod publish;
pub(crate) mod seed;
mod shutdown;
