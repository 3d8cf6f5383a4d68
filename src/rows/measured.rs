//! What metrics say of sources.

/// How sources get on.
#[derive(Debug, Default)]
pub(crate) struct MeasuredSources {
    pub(crate) extracts: Vec<MeasuredExtract>,
    /// How many tables are captured for a target and publish nothing.
    pub(crate) captures_off: Vec<(String, i64)>,
}

/// How one extract gets on.
#[derive(Debug)]
pub(crate) struct MeasuredExtract {
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) published: u64,
    pub(crate) skipped: u64,
    pub(crate) is_failing: bool,
    /// How long ago it looked.
    pub(crate) looked_seconds: Option<f64>,
    /// How long ago all was published that was there then.
    pub(crate) lag_seconds: Option<f64>,
}
