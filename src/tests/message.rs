use super::*;

fn raw(payload: &str) -> Message {
    Message::from_raw("billing", "order", RawValue::from_string(payload.to_owned()).expect("valid JSON"))
}

fn refusal(message: &Message) -> String {
    message.validate(1 << 20).expect_err("refused").to_string()
}

#[test]
fn payloads_that_jsonb_cannot_hold_are_refused_before_the_server_is_asked() {
    assert!(refusal(&raw(r#"{"a":"x\u0000"}"#)).contains("u0000"));
    assert!(refusal(&raw(r#"["\ud800"]"#)).contains("surrogate"));
    assert!(refusal(&raw(r#"["\ud800\u0041"]"#)).contains("surrogate"));
    assert!(refusal(&raw(r#"["\udc00"]"#)).contains("surrogate"));
    assert!(refusal(&raw(&format!("{}{}", "[".repeat(121), "]".repeat(121)))).contains("120"));
}

#[test]
fn payloads_that_only_look_dangerous_are_accepted() {
    for payload in [r#"{"a":"\\u0000"}"#, r#"["\ud83d\ude00"]"#, r#"["[[[[ \" {{{"]"#, r#""\u00e9""#, "1e400", "null"] {
        raw(payload).validate(1 << 20).unwrap_or_else(|error| panic!("{payload}: {error}"));
    }
}

#[test]
fn names_are_counted_in_characters_and_refused_with_their_limit() {
    let mut message = raw("1");
    message.target = "𝕏".repeat(50);
    message.validate(1 << 20).expect("50 four-byte characters are allowed");
    message.target.push('x');
    assert!(refusal(&message).contains("51 characters"));
    message.target = String::new();
    assert!(refusal(&message).contains("empty"));
    message.target = "a\0b".into();
    assert!(refusal(&message).contains("NUL"));
}

#[test]
fn a_payload_over_the_limit_says_its_size_and_the_limit() {
    let error = raw(&format!("\"{}\"", "x".repeat(100))).validate(50).expect_err("refused").to_string();
    assert!(error.contains("102 bytes") && error.contains("50"), "{error}");
}
