//! stub
use crate::cli::{
    Global,
    exit::{Exit, Failure},
    signals::Signals,
};
use clap::Args;
/// Everything
#[derive(Args, Debug)]
pub(crate) struct Report {}
impl Report {
    pub(crate) async fn run(self, _: &Global, _: Signals) -> Result<Exit, Failure> {
        Ok(Exit::Done)
    }
}
