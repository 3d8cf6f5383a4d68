//! What the doctor is asked for.

use std::time::Duration;

/// What the doctor calls old, slow and long.
#[derive(Clone, Debug)]
pub struct Options {
    /// A transaction open for so long is a warning, for twelve times as long a problem: it keeps dead rows from being
    /// removed. Default 5 min.
    pub transaction_old: Duration,
    /// A standby's query, or a replication slot, that lies so many transactions behind keeps dead rows from being removed.
    /// Default 1 million.
    pub transactions_many: u32,
    /// A target whose oldest pending message waits for so long should have a consumer that takes it. Default 1 min.
    pub waiting_long: Duration,
    /// How long a bell may take to arrive. Default 5 s.
    pub bell_within: Duration,
    /// How long one check may take. Default 15 s.
    pub check_within: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transaction_old: Duration::from_secs(300),
            transactions_many: 1_000_000,
            waiting_long: Duration::from_secs(60),
            bell_within: Duration::from_secs(5),
            check_within: Duration::from_secs(15),
        }
    }
}
