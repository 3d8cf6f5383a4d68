use std::time::UNIX_EPOCH;

use super::*;

#[test]
fn a_statement_says_what_was_given_and_leaves_out_what_was_not() {
    let message = Message::new("billing", "order.placed", &serde_json::json!({"id": 7})).expect("it serializes");
    let statement = message.statement("shop").expect("it may be published");
    let value = r#"{"source":"shop","target":"billing","type":"order.placed","data":{"id":7},"priority":0}"#;
    assert_eq!(statement.value(), value);
    let full = message.dedup_key("k").ordering_key("o").max_retries(u32::MAX).header("a", "b").priority(-1);
    let full = full.delay(std::time::Duration::from_millis(1500)).statement("shop").expect("it may be published");
    assert!(full.value().ends_with(
        r#""priority":-1,"delay_ms":1500,"headers":{"a":"b"},"ordering_key":"o","dedup_key":"k","max_retries":2147483647}"#
    ));
    assert_eq!(full.sql(), statement.sql());
    let elsewhere = statement.in_schema(&Schema::new("orders").expect("a name"));
    assert!(elsewhere.sql().starts_with("select orders.publish("), "{}", elsewhere.sql());
}

#[test]
fn what_may_not_be_published_has_no_statement() {
    let message = Message::new("", "n", &1).expect("it serializes");
    assert_eq!(message.statement("shop").expect_err("no target").kind(), crate::ErrorKind::Invalid);
    let message = Message::new("billing", "n", &1).expect("it serializes");
    assert!(message.statement("").expect_err("no source").to_string().contains("source"));
}

#[test]
fn times_before_and_after_the_epoch_are_whole_microseconds() {
    let mut delivery = Delivery::for_test(Message::new("billing", "n", &1).expect("it serializes"));
    for (offset, expected) in [(1_764_111_222_333_444_i64, "1764111222333444"), (-1_500_000, "-1500000")] {
        let span = std::time::Duration::from_micros(offset.unsigned_abs());
        delivery.created_at = if offset < 0 { UNIX_EPOCH - span } else { UNIX_EPOCH + span };
        assert!(delivery.completion().value().ends_with(&format!("\"created_us\":{expected}}}")));
    }
}
