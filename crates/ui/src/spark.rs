//! What happened to a target in the last hour, as a picture the size of a word.

use std::{collections::BTreeMap, time::SystemTime};

use doorbell::operate::Traffic;

/// Bars, each of two minutes.
const BARS: usize = 30;
const MINUTES: u64 = 2;
const HEIGHT: i64 = 18;

/// What was completed and what failed on top of it, as paths of an SVG of 90 by 18.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spark {
    pub(super) completed: String,
    pub(super) failed: String,
}

impl From<&Traffic> for Spark {
    fn from(traffic: &Traffic) -> Self {
        Self::of(&traffic.actions, traffic.until)
    }
}

impl Spark {
    /// What it shows.
    pub(super) const ACTIONS: [&str; 3] = ["completed", "errored", "failed"];

    fn of(traffic: &BTreeMap<SystemTime, BTreeMap<String, i64>>, until: SystemTime) -> Self {
        let mut bars = [(0_i64, 0_i64); BARS];
        for (at, actions) in traffic {
            let ago = until.duration_since(*at).unwrap_or_default().as_secs() / 60 / MINUTES;
            let Some(bar) = usize::try_from(ago).ok().and_then(|ago| bars.iter_mut().rev().nth(ago)) else { continue };
            let of = |action: &str| actions.get(action).copied().unwrap_or_default();
            bar.0 += of("completed");
            bar.1 += of("errored") + of("failed");
        }
        let most = bars.iter().map(|(completed, failed)| completed + failed).max().unwrap_or_default();
        // What is there is seen.
        let height = |count: i64| if count > 0 { (count * HEIGHT / most.max(1)).max(1) } else { 0 };
        let mut spark = Self::default();
        for (at, (completed, failed)) in bars.into_iter().enumerate() {
            let (x, completed, failed) = (at * 3, height(completed), height(failed));
            if completed > 0 {
                spark.completed += &format!("M{x} {HEIGHT}v-{completed}h2v{completed}z");
            }
            if failed > 0 {
                let top = HEIGHT - completed;
                spark.failed += &format!("M{x} {top}v-{failed}h2v{failed}z");
            }
        }
        spark
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spark(actions: &[(u64, &str, i64)]) -> Spark {
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut traffic: BTreeMap<SystemTime, BTreeMap<String, i64>> = BTreeMap::new();
        for (ago, action, count) in actions {
            let at = until - Duration::from_secs(ago * 60);
            traffic.entry(at).or_default().insert((*action).to_owned(), *count);
        }
        Spark::of(&traffic, until)
    }

    #[test]
    fn the_last_minutes_are_at_the_right_and_what_is_older_than_an_hour_is_not_there() {
        let spark = spark(&[(0, "completed", 9), (1, "completed", 9), (59, "failed", 1), (61, "failed", 9)]);
        assert_eq!(spark, Spark { completed: "M87 18v-18h2v18z".to_owned(), failed: "M0 18v-1h2v1z".to_owned() });
        assert_eq!(self::spark(&[]), Spark::default());
    }

    #[test]
    fn failures_stand_on_what_was_completed() {
        let spark = spark(&[(10, "completed", 2), (10, "errored", 1), (10, "published", 100)]);
        assert_eq!((spark.completed.as_str(), spark.failed.as_str()), ("M72 18v-12h2v12z", "M72 6v-6h2v6z"));
    }
}
