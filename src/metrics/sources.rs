//! What the database says about sources: captures and extracts.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    labels::{Source, Target},
    names::{CAPTURES_OFF, EXTRACT_FAILING, EXTRACT_LAG, EXTRACT_LOOKED, EXTRACT_SKIPPED, EXTRACTED},
};
use crate::rows::MeasuredSources;

#[derive(Debug, Default)]
pub(super) struct Sources {
    extracted: Family<Source, Counter>,
    skipped: Family<Source, Counter>,
    failing: Family<Source, Gauge<i64, AtomicI64>>,
    looked: Family<Source, Gauge<f64, AtomicU64>>,
    lag: Family<Source, Gauge<f64, AtomicU64>>,
    captures_off: Family<Target, Gauge<i64, AtomicI64>>,
}

impl Sources {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let sources = Self::default();
        registry.register(EXTRACTED, "Messages published by an extract", sources.extracted.clone());
        registry.register(EXTRACT_SKIPPED, "Rows that an extract could not publish", sources.skipped.clone());
        registry.register(EXTRACT_FAILING, "Whether the last look of an extract failed", sources.failing.clone());
        registry.register(EXTRACT_LOOKED, "How long ago an extract looked last", sources.looked.clone());
        registry.register(EXTRACT_LAG, "How long ago all was published that was there then", sources.lag.clone());
        registry.register(
            CAPTURES_OFF,
            "Captured tables whose changes are not published",
            sources.captures_off.clone(),
        );
        sources
    }

    pub(super) fn clear(&self) {
        self.extracted.clear();
        self.skipped.clear();
        self.failing.clear();
        self.looked.clear();
        self.lag.clear();
        self.captures_off.clear();
    }

    /// After they were cleared: counters begin at what the database has counted.
    pub(super) fn set(&self, measured: MeasuredSources) {
        for row in measured.extracts {
            let labels = Source { extract: row.name.into(), target: row.target.into() };
            self.extracted.get_or_create(&labels).inc_by(row.published);
            self.skipped.get_or_create(&labels).inc_by(row.skipped);
            self.failing.get_or_create(&labels).set(i64::from(row.is_failing));
            if let Some(seconds) = row.looked_seconds {
                self.looked.get_or_create(&labels).set(seconds);
            }
            if let Some(seconds) = row.lag_seconds {
                self.lag.get_or_create(&labels).set(seconds);
            }
        }
        for (name, count) in measured.captures_off {
            self.captures_off.get_or_create(&Target { target: name.into() }).set(count);
        }
    }
}
