//! Facts as pages show them.

use std::time::{Duration, SystemTime};

use doorbell::written::{duration, timestamp};

/// What is not there.
pub(super) const NOTHING: &str = "–";

/// A number with thin spaces between thousands.
pub(super) fn count(count: i64) -> String {
    let digits = count.unsigned_abs().to_string();
    let mut text = if count < 0 { "−".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `17m`, or that there is none.
pub(super) fn age(age: Option<Duration>) -> String {
    age.map_or_else(|| NOTHING.to_owned(), duration::coarse)
}

/// So many a second.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate <= 0.0 => "0".to_owned(),
        rate if rate < 0.1 => "<\u{202f}0.1".to_owned(),
        rate if rate < 100.0 => format!("{rate:.1}"),
        rate => count(rate as i64),
    }
}

/// A point in time: exact for programs, to the second for people.
pub(super) struct Time {
    pub(super) exact: String,
    pub(super) short: String,
}

pub(super) fn time(time: SystemTime) -> Time {
    let exact = timestamp::rfc3339(time);
    let second = exact.split_once('.').map_or(exact.as_str(), |(second, _)| second);
    let short = second.replace('T', " ");
    Time { short, exact }
}

/// What was written into a field, if anything was.
pub(super) fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// What was written into a field that takes one thing a line.
pub(super) fn lines(text: &str) -> Vec<String> {
    text.lines().filter_map(given).map(str::to_owned).collect()
}

/// A value in an address.
pub(super) fn in_address(value: &str) -> String {
    // Of text it is never wrong.
    askama::filters::urlencode_strict(value).map(|value| value.to_string()).unwrap_or_default()
}

/// JSON with a member a line; every number stays as it was written.
pub(super) fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut characters = json.chars().peekable();
    let new_line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = characters.next() {
        match c {
            _ if quoted => {
                text.push(c);
                quoted = escaped || c != '"';
                escaped = !escaped && c == '\\';
            }
            '"' => {
                text.push(c);
                quoted = true;
            }
            '{' | '[' => {
                text.push(c);
                if characters.peek().is_some_and(|next| !matches!(next, '}' | ']')) {
                    depth += 1;
                    new_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                if !text.ends_with(['{', '[']) {
                    depth = depth.saturating_sub(1);
                    new_line(&mut text, depth);
                }
                text.push(c);
            }
            ',' => {
                text.push(c);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            ' ' | '\n' => {}
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_kept_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1\u{202f}000"), (-1_234_567, "−1\u{202f}234\u{202f}567")]
        {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn json_is_indented_and_nothing_in_it_changes() {
        let json = r#"{"a": [1e400, {"b\\\"": "x, {y}: \\"}], "c": {}, "d": [], "e": 12345678901234567890.10}"#;
        let lines = [
            "{",
            "  \"a\": [",
            "    1e400,",
            "    {",
            r#"      "b\\\"": "x, {y}: \\""#,
            "    }",
            "  ],",
            "  \"c\": {},",
            "  \"d\": [],",
            "  \"e\": 12345678901234567890.10",
            "}",
        ];
        assert_eq!(indented(json), lines.join("\n"));
    }
}
