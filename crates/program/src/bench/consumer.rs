//! This program once more, as a consumer process of its own: `doorbell bench-consumer`, hidden.

use clap::Args;
use doorbell_bench::child::{self, DATABASE_VARIABLE};

use super::failure::failure;
use crate::{
    exit::{Exit, Failure},
    signals::Signals,
};

/// A part of `doorbell bench`.
#[derive(Args, Debug)]
pub(crate) struct BenchConsumer {
    /// 1: a consumer of the benchmark's target; more: as many idle ones, each with a target of its own.
    consumers: usize,
}

impl BenchConsumer {
    /// Consumes until it is told to stop, or its parent is gone.
    pub(crate) async fn run(self, mut signals: Signals) -> Result<Exit, Failure> {
        let url = std::env::var(DATABASE_VARIABLE).map_err(|_| {
            Failure::new(Exit::Usage, format!("{DATABASE_VARIABLE} is not set; this is a part of `doorbell bench`"))
        })?;
        child::consume(&url, self.consumers, signals.next()).await.map_err(failure)?;
        Ok(Exit::Done)
    }
}
