use super::{
    Global,
    exit::{Exit, Failure},
    signals::Signals,
};
use clap::Args;
#[derive(Args, Debug)]
pub(crate) struct Demo {}
#[derive(Args, Debug)]
pub(crate) struct DemoConsumer {}
impl Demo {
    pub(crate) async fn run(self, _: &Global, _: Signals) -> Result<Exit, Failure> {
        Ok(Exit::Done)
    }
}
impl DemoConsumer {
    pub(crate) async fn run(self, _: Signals) -> Result<Exit, Failure> {
        Ok(Exit::Done)
    }
}
