//! What operators do and ask: `pause`, `resume`, `redrive`, `retry`, `cancel`, `breaker`, `audit` and `maintain`.

use doorbell_testing::{plain_insert, until_status};

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
    let mut running = Running::start(doorbell(&db, &["consume", "billing", "--complete", "--count", "1"]));
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

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_redriven_by_filter_and_say_so_when_they_fail_again() {
    let db = Database::new().await;
    let client = db.client().await;
    let mut ids = Vec::new();
    for (target, reason) in [("billing", "timeout"), ("billing", "no such card"), ("shipping", "timeout")] {
        let id = plain_insert(&client, target, "1").await;
        let fail = "update integration.data_staging set status = 'failed', error_message = $2 where id = $1";
        client.execute(fail, &[&id, &reason]).await.unwrap();
        ids.push(id);
    }
    let filter = ["redrive", "--target", "billing", "--reason-like", "time%"];
    let dry = ended(doorbell(&db, &[&filter[..], &["--dry-run"]].concat())).await;
    assert_eq!(out(&dry), format!("{}\n", ids[0]));
    assert_eq!(count(&client, "select count(*) from integration.dead_letters").await, 3);
    let redriven = ended(doorbell(&db, &[&filter[..], &["--yes"]].concat())).await;
    assert_eq!((out(&redriven), redriven.status.code()), (format!("{}\n", ids[0]), Some(0)));
    until_status(&client, ids[0], "pending").await;
    client.execute("update integration.data_staging set status = 'failed' where id = $1", &[&ids[0]]).await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.dead_letters where failed_again").await, 1);
    // Neither ids nor a filter is a mistake, not "everything".
    assert_eq!(ended(doorbell(&db, &["redrive"])).await.status.code(), Some(2));
    assert_eq!(out(&ended(doorbell(&db, &["redrive", "--all", "--yes"])).await).lines().count(), 3);
    assert_eq!(ended(doorbell(&db, &["redrive", "--target", "nobody"])).await.status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_tells_the_life_of_a_message_even_after_it_is_gone() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("select integration.set_audit_level('all'); set application_name = 'a person'").await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    client.batch_execute("select integration.claim('billing', 'me', 1, p_lease => '1 h')").await.unwrap();
    client.batch_execute(&format!("select integration.complete({id}::bigint, 1, 'me')")).await.unwrap();
    let archive = "with gone as (delete from integration.data_staging where status = 'completed' returning *) \
                   insert into integration.data_staging_archive select * from gone";
    client.batch_execute(archive).await.unwrap();
    let told = ended(doorbell(&db, &["audit", &id.to_string(), "--json"])).await;
    let story = json_of(&told);
    let actions: Vec<_> = story["events"].as_array().unwrap().iter().map(|event| &event["action"]).collect();
    assert_eq!(actions, ["published", "claimed", "completed", "deleted"]);
    assert_eq!(story["events"][2]["by"], "a person");
    assert_eq!(story["events"][2]["owner"], "me");
    assert_eq!(ended(doorbell(&db, &["audit", "999999"])).await.status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn maintain_rescues_and_promotes_where_no_consumer_runs() {
    let db = Database::new().await;
    let client = db.client().await;
    let id = plain_insert(&client, "billing", "1").await;
    client.batch_execute("select integration.claim('billing', 'dead', 1, p_lease => '-1 s')").await.unwrap();
    client.batch_execute("select integration.publish('shop', 'billing', 'n', '2', p_delay => '1 us')").await.unwrap();
    let due = ended(doorbell(&db, &["maintain", "--dry-run"])).await;
    assert_eq!(out(&due), "TASK\tOF\tCOUNT\nrescue\tbilling\t1\npromote\tbilling\t1\nfold\tdeltas\t3\n");
    let maintained = ended(doorbell(&db, &["maintain", "--once"])).await;
    assert_eq!(out(&maintained), "rescued 1, promoted 1, archived 0, purged 0\n");
    let rescued = until_status(&client, id, "pending").await;
    assert_eq!((rescued.crash_count, rescued.retry_count), (1, 0));
    ended(doorbell(&db, &["maintain", "--once"])).await;
    let nothing = ended(doorbell(&db, &["maintain", "--dry-run", "--json"])).await;
    assert_eq!(out(&nothing), "{\"due\":[]}\n");
    assert_eq!(out(&ended(doorbell(&db, &["maintain", "--dry-run"])).await), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_is_opened_and_closed_from_the_command_line() {
    let db = Database::new().await;
    let client = db.client().await;
    plain_insert(&client, "billing", "1").await;
    let claimable = "select count(*) from integration.claim('billing', 'probe', 1, p_lease => '1 s')";
    let opened = ended(doorbell(&db, &["breaker", "open", "billing", "--reason", "maintenance", "--for", "10m"])).await;
    assert_eq!(opened.status.code(), Some(0));
    assert_eq!(count(&client, claimable).await, 0);
    assert_eq!(ended(doorbell(&db, &["breaker", "close", "billing"])).await.status.code(), Some(0));
    assert_eq!(ended(doorbell(&db, &["breaker", "close", "billing"])).await.status.code(), Some(3));
    assert_eq!(count(&client, claimable).await, 1);
}
