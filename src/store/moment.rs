//! How a [`Moment`](crate::filter::Moment) is said in a statement: three parameters, of which at most one is given.

/// The clock of the statement, which [`moment!`] reckons with, as `c`.
macro_rules! clock {
    () => {
        "(select k.now, date_trunc('day', k.now, 'UTC') as day from (select integration.clock() as now) k) c"
    };
}

/// A moment of three parameters: then, so many seconds ago, or that time of the day when it was last.
macro_rules! moment {
    ($at:literal, $ago:literal, $day:literal) => {
        concat!(
            "coalesce(",
            $at,
            ", c.now - make_interval(secs => ",
            $ago,
            "), c.day + make_interval(secs => ",
            $day,
            ") \
             - case when c.day + make_interval(secs => ",
            $day,
            ") > c.now then interval '1 day' else interval '0' end)"
        )
    };
}

pub(super) use {clock, moment};
