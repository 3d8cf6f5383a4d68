//! Waiting between attempts to reach the database. (The backoff of messages is SQL: `integration.backoff_ms`.)

use std::time::Duration;

/// Exponential with full jitter above half: between half and all of `min(cap, base * 2^failures)`.
///
/// `random` in `[0, 1)` is drawn by the caller, so that this stays a pure function. The lower half is never drawn because
/// this is a loop against one server, not a crowd that must spread over an interval from zero.
pub(crate) fn delay(base: Duration, cap: Duration, failures: u32, random: f64) -> Duration {
    let full = base.saturating_mul(2u32.saturating_pow(failures.min(20))).min(cap);
    full.mul_f64(0.5 + 0.5 * random)
}

/// A period of a background loop, spread by a tenth either way so that processes started together drift apart.
pub(crate) fn jittered(period: Duration, random: f64) -> Duration {
    period.mul_f64(0.9 + 0.2 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_stay_within_their_upper_half() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(5));
        assert_eq!(delay(base, cap, 0, 0.0), Duration::from_millis(50));
        assert_eq!(delay(base, cap, 2, 1.0), Duration::from_millis(400));
        assert_eq!(delay(base, cap, 4_000_000_000, 1.0), cap);
    }

    #[test]
    fn jitter_keeps_a_period_within_a_tenth() {
        let period = Duration::from_secs(10);
        assert_eq!(jittered(period, 0.0), Duration::from_secs(9));
        assert_eq!(jittered(period, 1.0), Duration::from_secs(11));
    }
}
