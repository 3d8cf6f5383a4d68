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
