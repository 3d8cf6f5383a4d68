//! The names of metrics, without the `_total` and `_info` that the encoder adds. Where OpenTelemetry's messaging conventions
//! (1.42, still in development) have a name, it is theirs, in Prometheus' spelling; the rest is ours. A change here is one of
//! `docs/metrics.md`, which a test compares with what is really exposed.

// OpenTelemetry's.
pub(crate) const OPERATION_DURATION: &str = "messaging_client_operation_duration_seconds";
pub(crate) const SENT: &str = "messaging_client_sent_messages";
pub(crate) const CONSUMED: &str = "messaging_client_consumed_messages";
pub(crate) const PROCESS_DURATION: &str = "messaging_process_duration_seconds";

// Ours: of this process.
pub(crate) const REQUEST_DURATION: &str = "doorbell_request_duration_seconds";
pub(crate) const REJECTED: &str = "doorbell_rejected_publishes";
pub(crate) const END_TO_END: &str = "doorbell_end_to_end_seconds";
pub(crate) const LOOKS: &str = "doorbell_looks";
pub(crate) const FOUND: &str = "doorbell_found_messages";
pub(crate) const BATCH: &str = "doorbell_batch_messages";
pub(crate) const FAILED_BATCHES: &str = "doorbell_failed_batches";
pub(crate) const RATE_CUTS: &str = "doorbell_rate_cuts";
pub(crate) const SETTLED: &str = "doorbell_settled_messages";
pub(crate) const ERRORED: &str = "doorbell_errored_runs";
pub(crate) const LEASE_LOSSES: &str = "doorbell_lease_losses";
pub(crate) const RESCUED: &str = "doorbell_rescued_messages";
pub(crate) const LISTENER_UP: &str = "doorbell_listener_up";
pub(crate) const LISTENER_RECONNECTS: &str = "doorbell_listener_reconnects";
pub(crate) const RUNTIME_BLOCKED: &str = "doorbell_runtime_blocked";
pub(crate) const BUILD: &str = "doorbell_build";

// Ours: of the database, the same from every process.
pub(crate) const MESSAGES: &str = "doorbell_messages";
pub(crate) const ACTIONS: &str = "doorbell_actions";
pub(crate) const SET_ASIDE: &str = "doorbell_set_aside";
pub(crate) const BLOCKED_KEYS: &str = "doorbell_blocked_keys";
pub(crate) const WAITING_REQUESTS: &str = "doorbell_waiting_requests";
pub(crate) const SCHEDULE_LATENESS: &str = "doorbell_schedule_lateness_seconds";
pub(crate) const OLDEST_AGE: &str = "doorbell_oldest_age_seconds";
pub(crate) const PROCESSES: &str = "doorbell_processes";
pub(crate) const BREAKER_STATE: &str = "doorbell_breaker_state";
pub(crate) const EXTRACTED: &str = "doorbell_extracted_messages";
pub(crate) const EXTRACT_SKIPPED: &str = "doorbell_extract_skipped_rows";
pub(crate) const EXTRACT_FAILING: &str = "doorbell_extract_failing";
pub(crate) const EXTRACT_LOOKED: &str = "doorbell_extract_looked_seconds";
pub(crate) const EXTRACT_LAG: &str = "doorbell_extract_lag_seconds";
pub(crate) const CAPTURES_OFF: &str = "doorbell_captures_off";
pub(crate) const DATABASE_UP: &str = "doorbell_database_up";
