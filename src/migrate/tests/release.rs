use super::*;

fn up_to_date() -> Recorded {
    let steps = STEPS.iter().map(|(_, sql)| checksum(sql)).collect();
    Recorded { steps, code: Some((code::checksum_of_all(), PROGRAM.to_owned())) }
}

#[test]
fn what_differs_is_missing() {
    let all: Vec<_> = STEPS.iter().map(|(name, _)| short(name)).chain(["code"]).collect();
    assert_eq!(Recorded::default().missing().expect("empty").names(), all);
    assert!(up_to_date().missing().expect("complete").names().is_empty());
    let mut other = up_to_date();
    other.code = Some(("x".into(), PROGRAM.into()));
    assert_eq!(other.missing().expect("other code").names(), ["code"]);
}

#[test]
fn an_altered_step_and_an_unknown_one_are_refused() {
    let mut altered = up_to_date();
    altered.steps[0] = "x".into();
    assert!(altered.missing().expect_err("altered").to_string().contains("0001_tables"));
    let mut unknown = up_to_date();
    unknown.steps.push("x".into());
    assert!(unknown.missing().expect_err("newer").to_string().contains("newer"));
}

#[test]
fn the_next_minor_version_is_left_alone_and_a_later_one_refused() {
    let [major, minor, patch] = numbers(PROGRAM);
    let installed = |program: String| Recorded { steps: vec!["x".into()], code: Some(("x".into(), program)) };
    for near in [format!("{major}.{minor}.{}", patch + 1), format!("{major}.{}.0", minor + 1)] {
        assert!(installed(near).missing().expect("near").names().is_empty());
    }
    for far in [format!("{major}.{}.0", minor + 2), format!("{}.0.0", major + 1)] {
        assert!(installed(far.clone()).missing().expect_err("far").to_string().contains(&far));
    }
    assert!(numbers("1.10.0") > numbers("1.9.3") && numbers("2.0.0-rc.1") == [2, 0, 0]);
}
