//! Times as RFC 3339 says, in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::duration;
use crate::filter::Moment;

const DAY: i64 = 86_400;

/// A time as people write it: `2026-03-01T02:10:30Z` (a space for the T, and no seconds or Z, will do), `02:10` for the last
/// time it was that, both in UTC; or how long ago: `30m`. What [`rfc3339`] writes is read exactly.
///
/// # Errors
/// What is no such time, with how to write one.
pub fn parse(text: &str) -> Result<Moment, String> {
    if let Ok(ago) = duration::parse(text) {
        return Ok(Moment::Ago(ago));
    }
    let wrong = || format!("{text:?} is no time; write 2026-03-01T02:10Z, 02:10 (UTC), or how long ago: 30m");
    let (date, time) = match text.trim_end_matches(['Z', 'z']).split_once(['T', 't', ' ']) {
        Some((date, time)) => (Some(date), time),
        None if text.contains(':') => (None, text.trim_end_matches(['Z', 'z'])),
        None => (Some(text), "00:00"),
    };
    let (time, micros) = match time.split_once('.') {
        Some((time, fraction)) => {
            (time, micros(fraction).filter(|_| time.matches(':').count() == 2).ok_or_else(wrong)?)
        }
        None => (time, 0),
    };
    let second = numbers(time, ':', 2..=3).filter(|t| t[0] < 24 && t[1] < 60 && t.get(2).is_none_or(|s| *s < 60));
    let second = second.map(|t| t[0] * 3600 + t[1] * 60 + t.get(2).copied().unwrap_or_default()).ok_or_else(wrong)?;
    let seconds = match date {
        Some(date) => {
            let date = numbers(date, '-', 3..=3).filter(|d| (1970..10_000).contains(&d[0])).ok_or_else(wrong)?;
            let days = days(date[0], date[1], date[2]);
            if civil(days) != (date[0], date[1], date[2]) {
                return Err(wrong());
            }
            days * DAY + second
        }
        None => return Ok(Moment::TimeOfDay(Duration::new(second.unsigned_abs(), micros * 1000))),
    };
    Ok(Moment::At(UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), micros * 1000)))
}

/// A fraction of a second, in microseconds: what is less is cut.
fn micros(fraction: &str) -> Option<u32> {
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit()) && (1..=9).contains(&fraction.len());
    digits.then(|| format!("{fraction:0<6}")[..6].parse().ok())?
}

fn numbers(text: &str, between: char, count: std::ops::RangeInclusive<usize>) -> Option<Vec<i64>> {
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?;
    let numbers: Option<Vec<i64>> = text.split(between).map(digits).collect();
    numbers.filter(|numbers| count.contains(&numbers.len()))
}

/// The inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `2026-02-28T23:59:59.123456Z`: microseconds, as PostgreSQL keeps them.
pub fn rfc3339(time: SystemTime) -> String {
    let micros = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_micros()).unwrap_or(i128::MAX),
        Err(before) => -i128::try_from(before.duration().as_micros()).unwrap_or(i128::MAX),
    };
    let (seconds, micros) = (micros.div_euclid(1_000_000) as i64, micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Days since 1970-01-01 as a date of the Gregorian calendar, counted in eras of 400 years that begin in March, so that
/// the leap day is the last of its year (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
#[path = "tests/timestamp.rs"]
mod tests;
