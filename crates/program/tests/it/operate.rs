//! `doorbell pause`, `resume`, `redrive`, `retry` and `cancel`.

use crate::program::*;

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
    let processes = json_of(&ended(doorbell(&db, &["processes", "--json"])).await);
    assert_eq!(processes["processes"][0]["targets"]["billing"]["types"], Value::Null);
    assert_eq!(processes["processes"][0]["alive"], true);
    let resumed = json_of(&ended(doorbell(&db, &["resume", "billing", "--json"])).await);
    assert_eq!(resumed, json!({ "target": "billing", "paused": false, "was_paused": true }));
    assert!(running.line().await.starts_with("{\"id\":1,"));
    assert_eq!(running.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_an_operator_are_enough_for_every_command_and_for_nothing_else() {
    let db = Database::new().await;
    let client = db.client().await;
    publish(&db, "1\n2\n3\n").await;
    let role = format!("operator_{}", db.name());
    let grants = grants("operator", &role);
    client.batch_execute(&format!("create role {role} login; {grants}")).await.unwrap();
    let url = db.url.replace("user=postgres", &format!("user={role}"));
    for (command, exit) in [
        ("stats", 0),
        ("targets", 0),
        ("processes", 0),
        ("list", 0),
        ("show 1 --data", 0),
        ("explain 1", 0),
        ("explain 99", 3),
        ("audit 1", 3),
        ("top --every 100ms", 0),
        ("pause billing --reason moving", 0),
        ("resume billing", 0),
        ("breaker open billing", 0),
        ("breaker close billing", 0),
        ("cancel 1 2", 0),
        ("redrive --status cancelled --target billing --yes", 0),
        ("publish billing --source shop --type n --data 1", 1),
        ("migrate --check", 0),
    ] {
        let mut program = bare(&command.split(' ').collect::<Vec<_>>());
        program.env("DATABASE_URL", &url);
        let output = ended(program).await;
        assert_eq!(output.status.code(), Some(exit), "{command}: {}", err(&output));
    }
}
