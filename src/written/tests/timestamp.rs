use super::*;

#[test]
fn times_are_read_as_people_write_them() {
    for (written, read) in [
        ("2000-02-29T12:34:56Z", "2000-02-29T12:34:56.000000Z"),
        ("2026-03-01 02:10", "2026-03-01T02:10:00.000000Z"),
        ("2026-12-31", "2026-12-31T00:00:00.000000Z"),
        ("2026-03-01T02:10:30.123456Z", "2026-03-01T02:10:30.123456Z"),
        ("2026-03-01T02:10:30.5", "2026-03-01T02:10:30.500000Z"),
    ] {
        let Ok(Moment::At(time)) = parse(written) else { panic!("{written}") };
        assert_eq!(rfc3339(time), read);
    }
    for wrong in [
        "2026-02-29",
        "25:00",
        "yesterday",
        "2026-3",
        "-5m",
        "",
        "1e400",
        "2026-01-01T1:2:3:4",
        "02:10.5",
        "02:10:30.",
        "02:10:30.x",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(parse("02:10"), Ok(Moment::TimeOfDay(Duration::from_secs(7800))));
    assert_eq!(parse("30m"), Ok(Moment::Ago(Duration::from_secs(1800))));
}

#[test]
fn leap_days_and_times_before_1970_are_written_right() {
    let after = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(after(0), "1970-01-01T00:00:00.000000Z");
    assert_eq!(after(951_827_696), "2000-02-29T12:34:56.000000Z");
    assert_eq!(after(1_772_323_199), "2026-02-28T23:59:59.000000Z");
    assert_eq!(after(4_107_542_400), "2100-03-01T00:00:00.000000Z");
    assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_millis(500)), "1969-12-31T23:59:59.500000Z");
}
