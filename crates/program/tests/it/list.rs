//! `doorbell list`, `show` and `explain`: one message, or many.

use crate::program::*;
use doorbell_testing::stop_the_clock;

const NOON: &str = "2026-03-01T12:00:00.000000Z";

/// One message of every kind that matters here, all published at noon.
async fn some(db: &Database) {
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    client
        .batch_execute(
            "select integration.publish('shop', 'billing', 'order.placed', '{\"n\": 1.50}', p_priority => -1, \
                    p_headers => '{\"traceparent\": \"00-1\"}', p_ordering_key => 'k'); \
             select integration.publish('shop', 'billing', 'order.placed', '2', p_delay => '5 min'); \
             select integration.publish('web', 'mail', 'welcome', '3'); \
             select integration.claim('mail', 'a consumer', p_lease => '1 h'); \
             set application_name = 'the mail service'; \
             select integration.reject(3, 1, 'a consumer', E'no such address:\\t<bob>')",
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn list_prints_a_table_for_people_and_all_fields_for_programs() {
    let db = Database::new().await;
    some(&db).await;
    let output = ended(doorbell(&db, &["list"])).await;
    ends_with(&output, 0);
    let table = format!(
        "ID\tTARGET\tTYPE\tSOURCE\tSTATUS\tPRIORITY\tATTEMPT\tCREATED\tREASON\n\
         3\tmail\twelcome\tweb\tfailed\t0\t1\t{NOON}\tno such address:\u{fffd}<bob>\n\
         2\tbilling\torder.placed\tshop\tscheduled\t0\t0\t{NOON}\t\n\
         1\tbilling\torder.placed\tshop\tpending\t-1\t0\t{NOON}\t\n"
    );
    assert_eq!((out(&output), err(&output)), (table, String::new()));
    let output = ended(doorbell(&db, &["list", "--status", "failed", "--json"])).await;
    let failed = format!(
        r#"{{"messages":[{{"id":3,"source":"web","target":"mail","type":"welcome","status":"failed","priority":0,"attempt":1,"retry_count":1,"crash_count":0,"redrive_count":0,"created_at":"{NOON}","updated_at":"{NOON}","available_at":null,"owner":null,"reason":"no such address:\t<bob>"}}],"next":null,"looked_until":null}}"#
    );
    assert_eq!(out(&output), failed + "\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_says_where_the_next_begins_and_nothing_found_is_exit_code_3() {
    let db = Database::new().await;
    publish(&db, &"1\n".repeat(5)).await;
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = ["list", "--status", "pending", "--limit", "2"];
        let after_that: Vec<&str> = after.iter().flat_map(|after: &String| ["--after", after]).collect();
        let output = ended(doorbell(&db, &[&page[..], &after_that].concat())).await;
        let more = ended(doorbell(&db, &[&page[..], &after_that, &["--json"]].concat())).await;
        ids.extend(out(&output).lines().skip(1).map(|line| line.split('\t').next().unwrap().to_owned()));
        let Some(next) = json_of(&more)["next"].as_str().map(str::to_owned) else { break };
        assert_eq!(err(&output), format!("for more: --after '{next}'\n"));
        after = Some(next);
    }
    assert_eq!(ids, ["1", "2", "3", "4", "5"]);
    let nothing = ended(doorbell(&db, &["list", "--target", "nobody"])).await;
    ends_with(&nothing, 3);
    assert_eq!(
        (out(&nothing), err(&nothing)),
        (String::new(), "no message, setting or process names the target nobody\n".to_owned())
    );
    assert_eq!(json_of(&ended(doorbell(&db, &["list", "--target", "nobody", "--json"])).await)["messages"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_words_of_list_are_usage_or_bad_data_and_say_what_is_right() {
    let db = Database::new().await;
    for (arguments, exit, said) in [
        (&["--status", "done"][..], 2, "pending, scheduled, processing, completed, failed, cancelled"),
        (&["--limit", "0"], 2, "1..=10000"),
        (&["--older-than", "x"], 2, "write 5m"),
        (&["--order", "due"], 65, "due for scheduled ones"),
        (&["--after", "x"], 65, "\"x\" is not a cursor"),
    ] {
        let output = ended(doorbell(&db, &[&["list"], arguments].concat())).await;
        ends_with(&output, exit);
        assert!(err(&output).contains(said), "{}", err(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn show_prints_every_field_and_the_payload_only_when_asked() {
    let db = Database::new().await;
    some(&db).await;
    let fields = format!(
        "id             1\nstatus         pending\nsource         shop\ntarget         billing\n\
         type           order.placed\npriority       -1\ncreated_at     {NOON}\nupdated_at     {NOON}\n\
         attempt        0\nretry_count    0\ncrash_count    0\nredrive_count  0\nordering_key   k\n\
         headers        {{\"traceparent\": \"00-1\"}}\n"
    );
    assert_eq!(out(&ended(doorbell(&db, &["show", "1"])).await), fields);
    let with_data = fields + "data           {\"n\": 1.50}\n";
    assert_eq!(out(&ended(doorbell(&db, &["show", "1", "--data"])).await), with_data);
    let json = out(&ended(doorbell(&db, &["show", "1", "--data", "--json"])).await);
    assert!(json.ends_with("\"headers\":{\"traceparent\": \"00-1\"},\"data\":{\"n\": 1.50}}\n"), "{json}");
    let told = out(&ended(doorbell(&db, &["show", "3"])).await);
    let history = format!(
        "\nAT\tACTION\tATTEMPT\tSTATUS\tBY\tOWNER\tDETAILS\n{NOON}\tfailed\t1\tprocessing -> failed\t\
         the mail service (postgres)\ta consumer\t{{\"reason\": \"no such address:\\t<bob>\", \"retry_count\": 1}}\n"
    );
    assert!(told.ends_with(&history), "{told}");
    let json = json_of(&ended(doorbell(&db, &["show", "3", "--json"])).await);
    assert_eq!((&json["events"][0]["action"], json.get("data")), (&json!("failed"), None));
    let missing = ended(doorbell(&db, &["show", "4"])).await;
    ends_with(&missing, 3);
    assert_eq!(err(&missing), "doorbell: there is no message 4; what is known of it: doorbell audit 4\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn show_finds_a_message_in_the_archive() {
    let db = Database::new().await;
    some(&db).await;
    let archive = "update integration.data_staging set status = 'completed' where id = 1; \
        with old as (delete from integration.data_staging where id = 1 returning *) \
        insert into integration.data_staging_archive select * from old";
    db.client().await.batch_execute(archive).await.unwrap();
    let json = json_of(&ended(doorbell(&db, &["show", "1", "--json", "--data"])).await);
    assert_eq!(
        (&json["archived"], &json["status"], &json["data"]["n"]),
        (&json!(true), &json!("completed"), &json!(1.5))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_the_cause_and_then_what_would_be_next_each_with_what_to_type() {
    let db = Database::new().await;
    some(&db).await;
    let client = db.client().await;
    client.batch_execute("set application_name = 'anna'; select integration.pause('billing', 'moving')").await.unwrap();
    let waits = "message 2: it waits until 2026-03-01 12:05:00Z (5 min): it was published with a delay\n  \
                 to change that: doorbell retry 2\n\
                 and then: billing was paused by anna 0.0 s ago: moving\n  to change that: doorbell resume billing\n\
                 and then: no live consumer of billing is registered\n  \
                 to change that: start the service that handles the messages of billing\n";
    assert_eq!(out(&ended(doorbell(&db, &["explain", "2"])).await), waits);
    let json = json_of(&ended(doorbell(&db, &["explain", "1", "--json"])).await);
    assert_eq!((&json["id"], &json["causes"][0]["code"]), (&json!(1), &json!("paused")));
    assert_eq!(json["causes"][0]["details"]["reason"], "moving");
    assert_eq!(json["causes"][1]["fix"], "start the service that handles the messages of billing");
    let missing = ended(doorbell(&db, &["explain", "4"])).await;
    ends_with(&missing, 3);
    assert_eq!(out(&missing), "message 4: there is no such message; the last id given out is 3\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_explain_says_to_type_helps() {
    let db = Database::new().await;
    publish(&db, "1\n").await;
    ends_with(&ended(doorbell(&db, &["pause", "billing"])).await, 0);
    let mut consumer = Running::start(doorbell(&db, &["consume", "billing", "--complete", "--count", "1"]));
    consumer.logs("consuming").await;
    let causes = json_of(&ended(doorbell(&db, &["explain", "1", "--json"])).await);
    assert_eq!(causes["causes"].as_array().unwrap().len(), 1, "{causes}");
    let fix: Vec<&str> = causes["causes"][0]["fix"].as_str().unwrap().split(' ').skip(1).collect();
    assert_eq!(fix, ["resume", "billing"]);
    ends_with(&ended(doorbell(&db, &fix)).await, 0);
    consumer.line().await;
    assert_eq!(consumer.ended().await, 0);
    let completed = out(&ended(doorbell(&db, &["explain", "1"])).await);
    assert!(completed.starts_with("message 1: it was completed at "), "{completed}");
}
