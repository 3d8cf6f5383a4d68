//! `doorbell stats`, `targets`, `consumers` and `top`: how things stand.

use crate::program::*;
use doorbell_testing::stop_the_clock;

#[tokio::test(flavor = "multi_thread")]
async fn stats_count_the_messages_of_every_target() {
    let db = Database::new().await;
    publish(&db, "1\n2\n").await;
    ends_with(&ended(doorbell(&db, &["consume", "billing", "--complete", "--count", "1"])).await, 0);
    let mut stats = json_of(&ended(doorbell(&db, &["stats", "--json"])).await);
    let age = stats["targets"][0]["oldest_age_seconds"].take();
    assert!(age.as_f64().is_some_and(|age| age >= 0.0), "{age}");
    // These depend on the minute that it is.
    for name in ["published_per_second", "completed_per_second", "sweep_share"] {
        let rate = stats["targets"][0].as_object_mut().unwrap().remove(name).unwrap();
        assert!(rate.as_f64().is_some_and(|rate| (0.0..=1.0).contains(&rate)), "{name}: {rate}");
    }
    let billing = json!({
        "target": "billing", "pending": 1, "scheduled": 0, "processing": 0, "completed": 1, "failed": 0, "cancelled": 0,
        "oldest_age_seconds": null, "empty_in_seconds": null, "next_due_in_seconds": null,
        "errored_last_hour": 0, "rescued_last_hour": 0, "failed_last_hour": 0,
    });
    assert_eq!(stats, json!({ "targets": [billing] }));
    let plain = out(&ended(doorbell(&db, &["stats"])).await);
    let fields: Vec<Vec<&str>> = plain.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!((fields.len(), fields[0][0], fields[0].len()), (2, "TARGET", 8));
    assert_eq!(fields[1][..5], ["billing", "1", "0", "0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_say_what_they_accept_and_hold_and_whether_they_are_lost() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    publish(&db, "1\n2\n").await;
    client
        .batch_execute(
            r#"select integration.register('one', 'host-1', 4242, 'billing-service', '1.0',
                   '{"billing": {"types": null, "capacity": 8}, "mail": {"types": ["a", "b"], "capacity": 1}}', 15000);
               select integration.claim('billing', 'one', 2)"#,
        )
        .await
        .unwrap();
    stop_the_clock(&client, 3).await;
    let at = "2026-03-01T12:00:00.000000Z";
    let table = |beat: &str, state: &str| {
        format!(
            "OWNER\tTARGETS\tAPPLICATION\tVERSION\tSTARTED\tPROCESSING\tLAST BEAT\tSTATE\n\
             one\tbilling (8), mail (1: a, b)\tbilling-service\t1.0\t{at}\t2\t{beat}\t{state}\n"
        )
    };
    assert_eq!(out(&ended(doorbell(&db, &["processes"])).await), table("3.0s", "alive"));
    let json = json_of(&ended(doorbell(&db, &["processes", "--json"])).await);
    let one = json!({
        "owner": "one", "host": "host-1", "pid": 4242, "application": "billing-service", "version": "1.0",
        "targets": { "billing": { "types": null, "capacity": 8 }, "mail": { "types": ["a", "b"], "capacity": 1 } },
        "started_at": at, "beat_at": at, "beat_age_seconds": 3.0, "processing": 2, "alive": true,
    });
    assert_eq!(json, json!({ "processes": [one] }));
    stop_the_clock(&client, 20).await;
    assert_eq!(out(&ended(doorbell(&db, &["processes"])).await), table("20s", "lost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_listed_with_messages_settings_or_consumers() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    publish(&db, "1\n").await;
    client
        .batch_execute(
            r#"select integration.register('one', 'host-1', 4242, 'mailer', '1.0', '{"mail": {"types": null, "capacity": 8}}', 15000);
               set application_name = 'anna';
               select integration.pause('ledger', 'year end');
               select integration.open_breaker('billing', 'cards are down', '30 s')"#,
        )
        .await
        .unwrap();
    stop_the_clock(&client, 2).await;
    let table = "TARGET\tPENDING\tSCHEDULED\tPROCESSING\tFAILED\tOLDEST PENDING\tPROCESSES\tWORKERS\tSTATE\n\
         billing\t1\t0\t0\t0\t2.0s\t0\t0\tthe breaker billing was opened by anna 2.0 s ago: cards are down; \
         canaries go through in 28 s\n\
         ledger\t0\t0\t0\t0\t-\t0\t0\tledger was paused by anna 2.0 s ago: year end\n\
         mail\t0\t0\t0\t0\t-\t1\t8\topen\n";
    assert_eq!(out(&ended(doorbell(&db, &["targets"])).await), table);
    let stats = ended(doorbell(&db, &["stats"])).await;
    assert!(err(&stats).contains("ledger was paused by anna 2.0 s ago: year end\n"), "{}", err(&stats));
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_listed_by_kind_traffic_by_the_minute_and_the_audit_log_backwards() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let nothing = ended(doorbell(&db, &["targets", "--trouble"])).await;
    assert!(err(&nothing).contains("no target is in trouble"));
    ends_with(&ended(doorbell(&db, &["stats", "--traffic", "1h"])).await, 3);
    client
        .batch_execute(
            "select integration.publish('shop', 'lonely' || n, 'order', '1') from generate_series(1, 5) n;
             insert into integration.data_staging (source_app, target_app, record_type, data, status)
             values ('shop', 'lonely1', 'order', '1', 'failed'); select integration.cancel('{2}')",
        )
        .await
        .unwrap();
    let trouble = json_of(&ended(doorbell(&db, &["targets", "--trouble", "--json"])).await);
    let expected = json!({ "troubles": [
        { "code": "no_consumer", "stops": true, "targets": ["lonely1", "lonely3", "lonely4", "lonely5"], "messages": 4,
          "oldest_age_seconds": 0.0, "fix": "doorbell consume lonely1" },
        { "code": "failed", "stops": false, "targets": ["lonely1"], "messages": 1, "oldest_age_seconds": null,
          "fix": "doorbell errors --target lonely1" },
    ] });
    assert_eq!(trouble, expected);
    let plain = out(&ended(doorbell(&db, &["targets", "--trouble"])).await);
    assert!(plain.contains("no consumer\t4\t") && plain.contains("lonely1, lonely3, lonely4, 1 more"), "{plain}");
    let traffic = json_of(&ended(doorbell(&db, &["stats", "--traffic", "1h", "--json"])).await);
    assert_eq!(traffic["step_seconds"], 60);
    assert_eq!(traffic["traffic"][0]["actions"]["published"], 6);
    let one = out(&ended(doorbell(&db, &["stats", "--traffic", "1d", "--target", "lonely3"])).await);
    assert!(one.lines().nth(1).unwrap().ends_with("\t1\t0\t0\t0\t0\t0"), "{one}");
    let audit = json_of(&ended(doorbell(&db, &["audit", "--action", "cancelled", "--json"])).await);
    assert_eq!((&audit["events"][0]["id"], &audit["events"][0]["target"]), (&json!(2), &json!("lonely2")));
    assert_eq!((&audit["next"], &audit["looked_until"]), (&Value::Null, &Value::Null));
    ends_with(&ended(doorbell(&db, &["audit", "--target", "nobody"])).await, 3);
    let settings = json_of(&ended(doorbell(&db, &["target", "show", "--json"])).await);
    assert_eq!(settings["max_retries"], 3);
}
