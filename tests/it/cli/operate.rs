//! `doorbell pause`, `resume`, `redrive`, `retry` and `cancel`.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn operators_cancel_redrive_pause_and_resume() {
    let db = Database::new().await;
    publish(&db, "1\n").await;
    let output = ended(doorbell(&db, &["cancel", "1", "99", "--reason", "withdrawn"])).await;
    ends_with(&output, 0);
    assert_eq!(out(&output), "1\n");
    assert!(err(&output).contains("99"));
    ends_with(&ended(doorbell(&db, &["cancel", "1"])).await, 3);
    assert_eq!(json_of(&ended(doorbell(&db, &["redrive", "1", "--json"])).await), json!({ "redriven": [1] }));
    ends_with(&ended(doorbell(&db, &["pause", "billing"])).await, 0);
    let mut running = Running::start(doorbell(&db, &["consume", "billing", "--count", "1"]));
    running.logs("consuming").await;
    let consumers = json_of(&ended(doorbell(&db, &["consumers", "--json"])).await);
    assert_eq!(consumers["consumers"][0]["targets"]["billing"]["types"], Value::Null);
    assert_eq!(consumers["consumers"][0]["alive"], true);
    let resumed = json_of(&ended(doorbell(&db, &["resume", "billing", "--json"])).await);
    assert_eq!(resumed, json!({ "target": "billing", "paused": false, "was_paused": true }));
    assert!(running.line().await.starts_with("{\"id\":1,"));
    assert_eq!(running.ended().await, 0);
}
