//! When a cron expression is due, against a reading of it with another program's time zones: minute by minute where the field of
//! hours begins with a star, day by day where it does not.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, Duration, LocalResult, NaiveDate, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use tokio_postgres::Client;

use crate::support::{Database, count};

/// Clocks that are put by an hour at different days and times, one by half an hour, and one on the southern side.
const ZONES: [&str; 4] = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"];

struct Cron {
    fields: [BTreeSet<u32>; 5],
    by_the_clock: bool,
    either: bool,
}

impl Cron {
    fn of(expression: &str) -> Self {
        let texts: Vec<&str> = expression.split(' ').collect();
        let bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
        let field = |at: usize| {
            let parts = texts[at].split(',').flat_map(|part| {
                let (range, step) = part.split_once('/').unwrap_or((part, "1"));
                let (first, last) = match range.split_once('-') {
                    _ if range == "*" => bounds[at],
                    Some((first, last)) => (first.parse().unwrap(), last.parse().unwrap()),
                    None => (range.parse().unwrap(), range.parse().unwrap()),
                };
                (first..=last).step_by(step.parse().unwrap())
            });
            parts.map(|number| if at == 4 { number % 7 } else { number }).collect()
        };
        let star = |at: usize| texts[at].starts_with('*');
        Self { fields: [0, 1, 2, 3, 4].map(field), by_the_clock: star(1), either: !star(2) && !star(4) }
    }

    fn is_on(&self, day: NaiveDate) -> bool {
        let [_, _, days, months, weekdays] = &self.fields;
        let (by_day, by_weekday) =
            (days.contains(&day.day()), weekdays.contains(&day.weekday().num_days_from_sunday()));
        let fits = if self.either { by_day || by_weekday } else { by_day && by_weekday };
        months.contains(&day.month()) && fits
    }

    /// The ticks after `start`, until `end`.
    fn ticks(&self, zone: Tz, start: DateTime<Utc>, end: DateTime<Utc>) -> Vec<i64> {
        let [minutes, hours, ..] = &self.fields;
        let mut all = BTreeSet::new();
        if self.by_the_clock {
            let mut at = start;
            while at <= end {
                let shown = at.with_timezone(&zone);
                if hours.contains(&shown.hour()) && minutes.contains(&shown.minute()) && self.is_on(shown.date_naive())
                {
                    all.insert(at.timestamp());
                }
                at += Duration::minutes(1);
            }
        } else {
            let mut day = start.date_naive() - Duration::days(3);
            while day <= end.date_naive() + Duration::days(3) {
                for (hour, minute) in hours.iter().flat_map(|hour| minutes.iter().map(move |minute| (*hour, *minute))) {
                    if self.is_on(day) {
                        all.insert(instant(zone, day, hour, minute).timestamp());
                    }
                }
                day += Duration::days(1);
            }
        }
        all.into_iter().filter(|at| *at > start.timestamp() && *at <= end.timestamp()).collect()
    }
}

/// A time of the day that is shown twice is the second one; one that is skipped is as much later.
fn instant(zone: Tz, day: NaiveDate, hour: u32, minute: u32) -> DateTime<Utc> {
    let shown = day.and_hms_opt(hour, minute, 0).unwrap();
    match zone.from_local_datetime(&shown) {
        LocalResult::Single(at) | LocalResult::Ambiguous(_, at) => at.to_utc(),
        LocalResult::None => {
            // By what the clock said before it was put forward.
            let before = zone.from_local_datetime(&(shown - Duration::hours(3))).unwrap();
            before.to_utc() + Duration::hours(3)
        }
    }
}

async fn ours(client: &Client, expression: &str, zone: &str, start: DateTime<Utc>, end: DateTime<Utc>) -> Vec<i64> {
    let sql = "with recursive ticks as ( \
            select integration.next_tick($1::text, $2::text, to_timestamp($3::bigint)) as at \
            union all select integration.next_tick($1, $2, at) from ticks where at <= to_timestamp($4::bigint)) \
        select extract(epoch from at)::bigint from ticks where at <= to_timestamp($4) order by at";
    let rows = client.query(sql, &[&expression, &zone, &start.timestamp(), &end.timestamp()]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn at(year: i32, month: u32, day: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(year, month, day, 0, 0, 0).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_of_the_day_comes_once_a_day_for_two_years_in_zones_that_put_their_clocks() {
    let client = Database::new().await.client().await;
    for zone in ZONES {
        for expression in ["30 2 * * *", "0 0 * * 1-5"] {
            let (start, end) = (at(2025, 1, 1), at(2027, 1, 1));
            let expected = Cron::of(expression).ticks(zone.parse().unwrap(), start, end);
            assert!(expected.len() > 500);
            assert_eq!(ours(&client, expression, zone, start, end).await, expected, "{expression} in {zone}");
        }
    }
}

/// A sequence that looks random and is the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(most)) as u32
    }

    fn field(&mut self, least: u32, most: u32, stars: u32) -> String {
        if self.below(100) < stars {
            return if self.below(2) == 0 { "*".into() } else { format!("*/{}", 2 + self.below(8)) };
        }
        let mut part = || {
            let first = least + self.below(most - least + 1);
            let last = first + self.below(most - first + 1);
            match self.below(3) {
                0 => first.to_string(),
                1 => format!("{first}-{last}"),
                _ => format!("{first}-{last}/{}", 1 + self.below(5)),
            }
        };
        [part(), part()].join(",")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_expression_is_due_when_another_reading_of_it_says_around_the_days_when_clocks_are_put() {
    let client = Database::new().await.client().await;
    let mut dice = Dice(7);
    let changes = [
        at(2025, 3, 9),
        at(2025, 3, 30),
        at(2025, 4, 6),
        at(2025, 9, 7),
        at(2025, 10, 5),
        at(2025, 10, 26),
        at(2025, 11, 2),
        at(2026, 3, 8),
        at(2026, 3, 29),
        at(2026, 10, 25),
        at(2026, 2, 27),
    ];
    let mut ticks = 0;
    for n in 0..160 {
        let expression = [
            dice.field(0, 59, 30),
            dice.field(0, 23, 40),
            dice.field(1, 31, 70),
            dice.field(1, 12, 90),
            dice.field(0, 7, 70),
        ]
        .join(" ");
        let zone = ZONES[n % ZONES.len()];
        let start = changes[dice.below(changes.len() as u32) as usize] - Duration::minutes(dice.below(1500).into());
        let window = Cron::of(&expression).ticks(zone.parse().unwrap(), start, start + Duration::days(3));
        let expected = &window[..window.len().min(60)];
        let end = expected.last().map_or(start + Duration::days(3), |last| DateTime::from_timestamp(*last, 0).unwrap());
        assert_eq!(
            ours(&client, &expression, zone, start, end).await,
            expected,
            "{expression} in {zone} after {start}"
        );
        ticks += expected.len();
    }
    assert!(ticks > 2000, "{ticks}");
}

#[tokio::test]
async fn what_is_no_schedule_is_refused_with_the_part_that_is_wrong() {
    let client = Database::new().await.client().await;
    for (wanted, code) in [
        ("p_cron => '0 0 30 2 *'", "MQ002"),
        ("p_cron => '60 * * * *'", "MQ002"),
        ("p_cron => '* * * *'", "MQ002"),
        ("p_cron => '5-1 * * * *'", "MQ002"),
        ("p_cron => '*/0 * * * *'", "MQ002"),
        ("p_cron => '* * * foo *'", "MQ002"),
        ("p_cron => '* * * * *', p_zone => 'Europe/Atlantis'", "22023"),
        ("p_every => '1 month'", "MQ002"),
        ("p_every => '10 ms'", "MQ002"),
        ("p_every => '1 h', p_cron => '* * * * *'", "MQ002"),
        ("p_missed => 'some', p_every => '1 h'", "23514"),
        ("p_priority => 0", "MQ002"),
    ] {
        let sql = format!("select integration.schedule('s', 'billing', 'n', {wanted})");
        assert_eq!(client.batch_execute(&sql).await.unwrap_err().code().unwrap().code(), code, "{wanted}");
    }
    for named in ["0 0 * jan-mar mon", "15,45 8-18/2 1 * *", "*/5 * * * sun", "0 0 29 2 *"] {
        let sql = format!("select count(integration.next_tick('{named}', 'UTC', now()))");
        assert_eq!(count(&client, &sql).await, 1, "{named}");
    }
}
