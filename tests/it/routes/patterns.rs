//! Patterns of record types, against a reading of them that has nothing in common with ours.

use crate::support::Database;

/// Whether a pattern matches, word by word.
fn matches(pattern: &[&str], words: &[&str]) -> bool {
    match (pattern.split_first(), words.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), _) => (0..=words.len()).any(|taken| matches(rest, &words[taken..])),
        (Some((&"*", rest)), Some((word, words))) => !word.is_empty() && matches(rest, words),
        (Some((literal, rest)), Some((word, words))) => literal == word && matches(rest, words),
        _ => false,
    }
}

#[tokio::test]
async fn a_subscription_takes_the_record_types_that_its_patterns_say() {
    let client = Database::new().await.client().await;
    let words = ["a", "b", "a+b", "(", "é", r"\d", "[x]"];
    let mut patterns = Vec::new();
    let mut types = Vec::new();
    for x in words.iter().chain(&["*", "#"]) {
        patterns.push((*x).to_owned());
        for y in words.iter().take(3).chain(&["*", "#"]) {
            patterns.push(format!("{x}.{y}"));
            patterns.extend(["a", "*", "#"].map(|z| format!("{x}.{y}.{z}")));
        }
    }
    for x in words {
        types.push(x.to_owned());
        for y in ["a", "b", "a+b"] {
            types.push(format!("{x}.{y}"));
            types.extend(["a", "c.a"].map(|z| format!("{x}.{y}.{z}")));
        }
    }
    types.extend(["", "a.", ".a", "a..a", "aXb", "a\nb"].map(str::to_owned));
    let sql = "select p.ordinal, t.ordinal, integration.takes(integration.exact_types(array[p.name]), \
            integration.types_pattern(array[p.name]), null, t.name, 'shop') \
        from unnest($1::text[]) with ordinality p (name, ordinal) cross join unnest($2::text[]) with ordinality t (name, ordinal)";
    let mut taken = 0;
    for row in client.query(sql, &[&patterns, &types]).await.unwrap() {
        let (pattern, record_type) =
            (&patterns[row.get::<_, i64>(0) as usize - 1], &types[row.get::<_, i64>(1) as usize - 1]);
        let split = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let (left, right) = (split(pattern), split(record_type));
        let expected = matches(
            &left.iter().map(String::as_str).collect::<Vec<_>>(),
            &right.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        assert_eq!(row.get::<_, Option<bool>>(2).unwrap_or(false), expected, "{pattern:?} and {record_type:?}");
        taken += usize::from(expected);
    }
    assert!(taken > 1000, "{taken}");
    for wrong in ["a*", "order.#x", "*.**"] {
        let error = client.query("select integration.types_pattern(array[$1])", &[&wrong]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "MQ002", "{wrong}");
    }
}
