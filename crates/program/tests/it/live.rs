//! `doorbell follow` and `top`: what happens, while it happens.

use crate::program::*;

#[tokio::test(flavor = "multi_thread")]
async fn tail_tells_new_messages_and_what_becomes_of_them_also_what_commits_late() {
    let db = Database::new().await;
    publish(&db, "0\n").await;
    let mut tail = Running::start(doorbell(&db, &["follow", "--target", "billing", "--json", "--every", "20ms"]));
    tail.logs("following billing").await;
    let late = db.client().await;
    late.batch_execute("begin").await.unwrap();
    let id = doorbell_testing::plain_insert(&late, "billing", "1").await;
    publish(&db, "2\n").await;
    let told: Value = serde_json::from_str(&tail.line().await).unwrap();
    assert_eq!((&told["action"], &told["id"], &told["source"]), (&json!("published"), &json!(id + 1), &json!("shop")));
    late.batch_execute("commit").await.unwrap();
    let told: Value = serde_json::from_str(&tail.line().await).unwrap();
    assert_eq!((&told["action"], &told["id"], &told["source"]), (&json!("published"), &json!(id), &json!("psql")));
    let reason = "no longer wanted";
    ends_with(&ended(doorbell(&db, &["cancel", "1", "--reason", reason])).await, 0);
    let told: Value = serde_json::from_str(&tail.line().await).unwrap();
    assert_eq!(
        (&told["action"], &told["id"], &told["details"]["reason"]),
        (&json!("cancelled"), &json!(1), &json!(reason))
    );
    assert!(told["by"].as_str().unwrap().starts_with("doorbell ("), "{told}");
    tail.signal(Signal::SIGINT);
    assert_eq!(tail.ended().await, 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_goes_on_where_it_stopped_when_its_connection_was_lost() {
    let db = Database::new().await;
    let client = db.client().await;
    let mut tail = Running::start(doorbell(&db, &["follow", "--json", "--every", "20ms"]));
    tail.logs("following all targets").await;
    let its_own = "datname = current_database() and pid <> pg_backend_pid()";
    client
        .batch_execute(&format!("select pg_terminate_backend(pid) from pg_stat_activity where {its_own}"))
        .await
        .unwrap();
    publish(&db, "1\n").await;
    let told: Value = serde_json::from_str(&tail.line().await).unwrap();
    assert_eq!((&told["action"], &told["id"]), (&json!("published"), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_a_line_of_words_without_json() {
    let db = Database::new().await;
    let client = db.client().await;
    doorbell_testing::stop_the_clock(&client, 0).await;
    let mut tail = Running::start(doorbell(&db, &["follow", "--every", "20ms"]));
    tail.logs("following all targets").await;
    let sql = "set application_name = 'anna'; select integration.publish('shop', 'billing', E'a\tb', '1'); \
               select integration.cancel('{1}', 'withdrawn')";
    client.batch_execute(sql).await.unwrap();
    let at = "2026-03-01T12:00:00.000000Z";
    assert_eq!(tail.line().await, format!("{at}\tpublished \t1\tbilling\ta\u{fffd}b\t-\t-"));
    assert_eq!(tail.line().await, format!("{at}\tcancelled \t1\tbilling\ta\u{fffd}b\t0\tanna\twithdrawn"));
}

#[tokio::test(flavor = "multi_thread")]
async fn top_without_a_terminal_measures_once_and_ends() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("select integration.pause('mail', 'moving')").await.unwrap();
    let mut consumer = Running::start(doorbell(&db, &["consume", "billing", "--complete"]));
    consumer.logs("consuming").await;
    let mut top = doorbell(&db, &["top", "--json", "--every", "2s"]);
    let measuring = top.spawn().unwrap();
    // It is connected from its first look on: what is published now is in its measurement.
    let looks = "select count(*) > 0 from pg_stat_activity where datname = current_database() and query like '%integration.audit_log a%' \
                 and pid <> pg_backend_pid()";
    doorbell_testing::until(&client, "it has looked once", looks).await;
    publish(&db, &"1\n".repeat(10)).await;
    for _ in 0..10 {
        consumer.line().await;
    }
    let output = soon("it ends", measuring.wait_with_output()).await.unwrap();
    ends_with(&output, 0);
    let report = json_of(&output);
    assert!(report["seconds"].as_f64().unwrap() >= 2.0);
    assert_eq!(report["processes"][0]["targets"]["billing"]["capacity"], 1);
    let [billing, mail] = &report["targets"].as_array().unwrap()[..] else { panic!("{report}") };
    assert!(billing["published_per_second"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!((&billing["workers"], &billing["closed_gates"]), (&json!(1), &json!([])));
    assert_eq!((&mail["closed_gates"][0]["code"], &mail["workers"]), (&json!("paused"), &json!(0)));
    let plain = out(&ended(doorbell(&db, &["top", "--every", "100ms"])).await);
    let lines: Vec<&str> = plain.lines().collect();
    assert!(lines[0].starts_with("latency "), "{plain}");
    assert!(lines[1].starts_with("TARGET\tPUBLISHED/S\tCOMPLETED/S\t"), "{plain}");
    assert_eq!(lines.len(), 4, "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn top_draws_on_a_terminal_and_gives_it_back_however_it_ends() {
    const LEFT_THE_SECOND_SCREEN: &str = "\x1b[?1049l";
    let db = Database::new().await;
    publish(&db, "1\n").await;
    db.client().await.batch_execute("select integration.pause('billing', 'moving')").await.unwrap();
    for (end, exit) in [("q", 0), ("\x03", 130), ("SIGTERM", 130)] {
        let mut top = Terminal::start(doorbell(&db, &["top", "--every", "100ms"]));
        top.shows("PAUSED: billing was paused by").await;
        top.shows("processes").await;
        match end {
            "SIGTERM" => top.signal(Signal::SIGTERM),
            keys => top.types(keys),
        }
        top.shows(LEFT_THE_SECOND_SCREEN).await;
        assert_eq!(top.ended().await, exit, "{end:?}");
    }
}
