//! The path of a message, from whoever publishes it to the handler.

mod drawing;
mod handlers;
mod main_path;
mod mappings;
mod publish;
mod publishers;
pub(crate) mod seed;
mod shutdown;
mod together;
