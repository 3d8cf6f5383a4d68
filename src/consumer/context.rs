//! What every part of one consumer may use and none may change.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{allowance::Allowance, config::ConsumerConfig, pulse::Pulse};
use crate::{
    error::Result,
    handler::Registry,
    message::{Delivery, Found},
    process::Process,
    store::{ClaimRequest, Store},
    telemetry::{Processing, ProcessingTogether},
};

pub(super) struct Context {
    pub(super) store: Store,
    pub(super) target: String,
    pub(super) config: ConsumerConfig,
    pub(super) registry: Registry,
    pub(super) process: Arc<Process>,
    pub(super) allowance: Allowance,
    pub(super) pulse: Pulse,
    /// Places of handlers that run at a time, of leased messages and of held ones.
    pub(super) slots: Arc<Semaphore>,
}

impl Context {
    pub(super) fn request<'a>(&'a self, owner: &'a Arc<str>) -> ClaimRequest<'a> {
        ClaimRequest {
            target: &self.target,
            owner,
            record_types: self.config.record_types.as_deref(),
            bytes_max: i64::try_from(self.config.claim_bytes_max).unwrap_or(i64::MAX),
        }
    }

    /// Runs a claim, for telemetry. `count`: how many messages it brought; `None`: it was no look.
    pub(super) async fn claiming<T>(
        &self,
        found: Found,
        claim: impl Future<Output = Result<T>>,
        count: impl FnOnce(&T) -> Option<usize>,
    ) -> Result<T> {
        // In a box: each function that hands a future on makes room for it twice, and a thousand consumers that look for
        // the first time would leave as many holes of 50 kB in the heap.
        self.store.telemetry().claiming(&self.target, found, Box::pin(claim), count).await
    }

    /// Begins to run a handler, for telemetry.
    pub(super) fn processing(&self, delivery: &Delivery) -> Processing<'_> {
        let record_type = self.registry.label(&delivery.record_type);
        self.store.telemetry().processing(&self.target, record_type, delivery)
    }

    /// The same, for one that is given all of these.
    pub(super) fn processing_together(&self, deliveries: &[Delivery]) -> ProcessingTogether<'_> {
        let label = |delivery: &Delivery| self.registry.label(&delivery.record_type);
        self.store.telemetry().processing_together(&self.target, deliveries, label)
    }

    /// Runs the commit that settles messages of transactional handlers, for telemetry.
    pub(super) async fn committing(&self, messages: usize, commit: impl Future<Output = Result<()>>) -> Result<()> {
        self.settling(messages, async { commit.await.map(|()| 0) }).await
    }

    /// Runs what settles messages, for telemetry. It returns how many of them had lost their lease.
    pub(super) async fn settling(&self, messages: usize, settle: impl Future<Output = Result<usize>>) -> Result<()> {
        self.store.telemetry().settling(&self.target, messages, Box::pin(settle)).await.map(drop)
    }
}
