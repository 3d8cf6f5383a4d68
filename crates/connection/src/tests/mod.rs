//! Settings as a whole, and connecting to servers that misbehave.

mod authentication;
mod hosts;
mod settings;

use super::{Settings, environment::Given};
use crate::error::{Error, Result};

const PASSWORD: &str = "hunter2-MARK";

fn parse(text: &str) -> Result<Settings> {
    Settings::parse_in(text, &Given::default())
}

/// Everything that an error can show.
fn everything(error: &Error) -> String {
    format!("{error} | {error:?} | {error:#?}")
}
