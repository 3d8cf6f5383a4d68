//! `doorbell publish`.

use crate::program::*;

#[tokio::test(flavor = "multi_thread")]
async fn publish_prints_the_id_of_a_message_that_is_as_it_was_asked_for() {
    let db = Database::new().await;
    let options =
        ["--header", "traceparent=00-1", "--header", "a=b=c", "--priority", "-3", "--key", "k", "--delay", "5m"];
    let output = ended(doorbell(&db, &[&PUBLISH[..], &options, &["--data", " {\"n\": 1.50} "]].concat())).await;
    ends_with(&output, 0);
    assert_eq!((out(&output).as_str(), err(&output).as_str()), ("1\n", ""));
    let row = db
        .client()
        .await
        .query_one(
            "select source_app, target_app, record_type, data::text, priority, status, headers::text, ordering_key, \
             available_at - created_at between '299 s' and '301 s' from integration.data_staging where id = 1",
            &[],
        )
        .await
        .unwrap();
    let texts: Vec<&str> = [0, 1, 2, 3, 5, 6, 7].map(|at| row.get(at)).to_vec();
    let headers = r#"{"a": "b=c", "traceparent": "00-1"}"#;
    assert_eq!(texts, ["shop", "billing", "n", r#"{"n": 1.50}"#, "scheduled", headers, "k"]);
    assert_eq!((row.get::<_, i32>(4), row.get(8)), (-3, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dedup_key_that_was_used_answers_with_the_first_id() {
    let db = Database::new().await;
    for _ in 0..2 {
        let output = ended(doorbell(&db, &[&PUBLISH[..], &["--dedup-key", "k", "--data", "1"]].concat())).await;
        assert_eq!(out(&output), "1\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_file_is_published_in_order() {
    let db = Database::new().await;
    let directory = Directory::new("file");
    let file = directory.join("numbers.ndjson");
    std::fs::write(&file, (1..=5000).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
    let output = ended(doorbell(&db, &[&PUBLISH[..], &["--json", "--file", &file]].concat())).await;
    ends_with(&output, 0);
    let report = json_of(&output);
    assert_eq!((&report["published"], report["ids"].as_array().unwrap().len()), (&json!(5000), 5000));
    let in_order = "select count(*) from (select data::text::bigint - row_number() over (order by id) as off \
        from integration.data_staging) n where off = 0";
    assert_eq!(count(&db.client().await, in_order).await, 5000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_named_and_nothing_of_its_input_is_published() {
    let db = Database::new().await;
    let late = (1..5001).map(|n| format!("{n}\n")).collect::<String>() + "\"\\u0000\"\n";
    for (input, line, column) in
        [("1\n\n{\"a\": tru}\n4\n", "line 3", "column 10"), (late.as_str(), "line 5001", "u0000")]
    {
        let output = fed(doorbell(&db, &[&PUBLISH[..], &["-"]].concat()), input).await;
        ends_with(&output, 65);
        let said = err(&output);
        assert!(said.contains(line) && said.contains(column) && said.contains("nothing is published"), "{said}");
        assert_eq!(out(&output), "");
    }
    // What the server alone refuses: a number that JSON allows and its own type does not.
    let output = fed(doorbell(&db, &[&PUBLISH[..], &["-"]].concat()), "1\n1e999999\n").await;
    ends_with(&output, 65);
    assert!(err(&output).contains("lines 1 to 2"), "{}", err(&output));
    assert_eq!(count(&db.client().await, "select count(*) from integration.data_staging").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_not_json_is_bad_data_and_a_command_without_any_is_wrong_usage() {
    let db = Database::new().await;
    ends_with(&ended(doorbell(&db, &[&PUBLISH[..], &["--data", "{"]].concat())).await, 65);
    ends_with(&ended(doorbell(&db, &PUBLISH)).await, 2);
    ends_with(&ended(doorbell(&db, &[&PUBLISH[..], &["--data", "1", "-"]].concat())).await, 2);
    ends_with(&ended(doorbell(&db, &[&PUBLISH[..], &["--dedup-key", "k", "-"]].concat())).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_are_never_logged_whatever_the_level() {
    let db = Database::new().await;
    let mut command = doorbell(&db, &[&PUBLISH[..], &["--data", "\"a secret payload\"", "-vvv"]].concat());
    command.env("RUST_LOG", "trace,tokio_postgres=trace");
    let output = ended(command).await;
    ends_with(&output, 0);
    assert!(!err(&output).contains("secret"), "{}", err(&output));
}

/// The function of the page, and the program.
#[tokio::test(flavor = "multi_thread")]
async fn events_become_the_messages_that_the_page_says_and_one_that_comes_again_keeps_its_id() {
    let db = Database::new().await;
    let client = db.client().await;
    let page = doorbell_testing::repository("docs/cloudevents.md");
    let functions = page.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    client.batch_execute(functions).await.unwrap();
    let events = [
        json!({
            "specversion": "1.0", "id": "A-17", "source": "/orders", "type": "com.example.placed", "subject": "7",
            "time": "2026-03-01T12:00:00Z", "partitionkey": "k", "datacontenttype": "application/json; charset=utf-8",
            "data": [1, null], "sequence": 5, "sampled": true,
        }),
        json!({ "specversion": "1.0", "id": "A-17", "source": "/returns", "type": "t", "datacontenttype": "application/geo+json" }),
        json!({ "specversion": "1.0", "id": "A-18", "source": "/orders", "type": "t", "data": "grüße" }),
    ];
    for event in &events {
        client.query_one("select publish_cloudevent('mapped', $1)", &[event]).await.unwrap();
    }
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    client.batch_execute("delete from integration.dedup_keys").await.unwrap();
    for _ in 0..2 {
        let output = fed(doorbell(&db, &["publish", "billing", "--cloudevents", "-"]), &lines).await;
        ends_with(&output, 0);
        assert_eq!(out(&output), "4\n5\n6\n");
    }
    let unlike = "select count(*) from (select source_app, record_type, data, headers, ordering_key, dedup_key, priority \
        from integration.data_staging where target_app = 'mapped' except select source_app, record_type, data, headers, \
        ordering_key, dedup_key, priority from integration.data_staging where target_app = 'billing') u";
    assert_eq!(count(&client, unlike).await, 0);
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_named_and_an_event_says_its_source_itself() {
    let db = Database::new().await;
    let events = |more: &str| doorbell(&db, &["publish", "billing", "--cloudevents", "--data", more]);
    for (event, expected) in [
        ("[]", "no object"),
        ("{\"id\": 1", "not JSON"),
        (r#"{"specversion": "0.3", "id": "1", "source": "s", "type": "t"}"#, "specversion is \"0.3\""),
        (r#"{"specversion": "1.0", "id": "1", "source": "", "type": "t"}"#, "source is missing"),
        (r#"{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data_base64": "AA=="}"#, "data_base64"),
        (r#"{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "datacontenttype": "text/xml"}"#, "text/xml"),
    ] {
        let output = ended(events(event)).await;
        ends_with(&output, 65);
        assert!(err(&output).contains(expected), "{event}: {}", err(&output));
    }
    ends_with(&ended(doorbell(&db, &[&PUBLISH[..], &["--cloudevents", "--data", "{}"]].concat())).await, 2);
    assert_eq!(count(&db.client().await, "select count(*) from integration.data_staging").await, 0);
}
