//! Durations as people write them.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `5m`, `1h30m`, `250ms`, `1.5s`; a bare number is seconds.
///
/// # Errors
/// What is no duration, with how to write one.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 5m, 1h30m, 250ms or a number of seconds");
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = Duration::try_from_secs_f64(number * *unit_ms as f64 / 1000.0).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// [`parse`] for an option that takes no less than `least` and no more than `most`.
pub fn between(
    least: &'static str,
    most: &'static str,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| {
        let given = parse(text)?;
        let allowed = parse(least)?..=parse(most)?;
        if allowed.contains(&given) { Ok(given) } else { Err(format!("give a duration from {least} to {most}")) }
    }
}

/// The coarse age of something: `0.8s`, `42s`, `17m`, `5h`, `3d`.
pub fn coarse(age: Duration) -> String {
    match age.as_secs() {
        0..10 => format!("{:.1}s", age.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [("5m", 300_000), ("1h30m", 5_400_000), ("250ms", 250), ("1.5s", 1500), ("2", 2000), ("0", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn an_option_takes_both_bounds_and_says_them_when_it_refuses() {
        let every = between("100ms", "1h");
        assert_eq!((every("0.1"), every("60m")), (Ok(Duration::from_millis(100)), Ok(Duration::from_secs(3600))));
        for text in ["99ms", "61m"] {
            assert_eq!(every(text), Err("give a duration from 100ms to 1h".to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in ["", "m", "5 m", "5x", "-5", "1e999", "5m3", "NaN"] {
            assert!(parse(text).expect_err(text).contains("5m"), "{text}");
        }
    }
}
