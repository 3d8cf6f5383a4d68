//! What no sane program sends, and a clock that jumps.

use doorbell::Outcome;

use crate::support::{Database, bells_only, count, plain_insert, seen, until_status};

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_by_an_hour_changes_no_settle_and_rescues_nobody() {
    let db = Database::new().await;
    let client = db.client().await;
    let (tell, mut told) = seen();
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let opened = gate.clone();
    let broker = db.broker().await;
    let consumer = broker.consumer("billing").config(bells_only()).fallback(move |delivery| {
        let (tell, gate) = (tell.clone(), gate.clone());
        async move {
            tell.send(delivery.attempt)?;
            gate.acquire().await?.forget();
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    assert_eq!(told.next().await, 1);
    let clock = "create or replace function integration.clock() returns timestamptz language sql volatile parallel safe \
                 return clock_timestamp() - interval '1 hour'";
    client.batch_execute(clock).await.unwrap();
    assert_eq!(count(&client, "select integration.rescue()::bigint").await, 0);
    opened.add_permits(1);
    let completed = until_status(&client, id, "completed").await;
    assert_eq!((completed.attempt, completed.crash_count, completed.retry_count), (1, 0, 0));
    // Published in the hour that comes a second time: handled as well.
    let next = plain_insert(&client, "billing", "2").await;
    opened.add_permits(1);
    until_status(&client, next, "completed").await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_of_a_hundred_megabytes_are_refused_by_the_table_with_the_limit_in_the_name_of_the_rule() {
    let db = Database::new().await;
    let client = db.client().await;
    let huge = "insert into integration.data_staging (source_app, target_app, record_type, data) \
                values ('psql', 'billing', 'n', to_jsonb(repeat('x', 100000000)))";
    let refused = client.batch_execute(huge).await.unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!((refused.code().code(), refused.constraint()), ("23514", Some("data")));
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 0);
}

#[tokio::test]
async fn names_and_keys_of_a_wrong_length_are_refused_with_column_value_and_rule_alone_and_among_others() {
    let db = Database::new().await;
    let client = db.client().await;
    for (column, wrong, said) in [
        ("source_app", "''", "source_app has 0 characters; 1 to 50 are allowed: \"\""),
        ("target_app", "repeat('y', 51)", "target_app has 51 characters; 1 to 50 are allowed"),
        ("record_type", "''", "record_type has 0 characters"),
        ("ordering_key", "repeat('y', 201)", "ordering_key has 201 characters; 1 to 200 are allowed"),
        ("dedup_key", "''", "dedup_key has 0 characters"),
        ("max_retries", "-1", "max_retries is -1; it cannot be negative"),
    ] {
        let value = |name| match name {
            name if name == column => wrong,
            "max_retries" => "1",
            "dedup_key" => "null",
            _ => "'x'",
        };
        let names = ["source_app", "target_app", "record_type", "ordering_key", "dedup_key", "max_retries"];
        let values = names.map(value).join(", ");
        let insert = format!("insert into integration.data_staging (data, {}) select '1', {values}", names.join(", "));
        let among = format!("{insert} union all select '2', 'x', 'x', 'x', 'x', null, 1");
        for insert in [insert, among] {
            let insert = insert.replace("select '1'", "select '1'::jsonb").replace("select '2'", "select '2'::jsonb");
            let refused = client.batch_execute(&insert).await.unwrap_err();
            let refused = refused.as_db_error().unwrap_or_else(|| panic!("{insert}"));
            assert_eq!((refused.code().code(), refused.constraint()), ("23514", Some(column)), "{insert}: {refused:?}");
            assert!(refused.message().contains(said), "{}", refused.message());
        }
    }
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_levels_and_numbers_beyond_a_double_fail_alone_or_are_refused() {
    let db = Database::new().await;
    let client = db.client().await;
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let message = |payload: String| {
        doorbell::Message::from_raw("billing", "n", serde_json::value::RawValue::from_string(payload).unwrap())
    };
    let producer = db.broker().await.producer("shop");
    // RawValue itself refuses the deepest; what it lets through is refused by name.
    let refused = producer.publish(&message(deep(125))).await.unwrap_err();
    assert_eq!(refused.kind(), doorbell::ErrorKind::Invalid);
    for (payload, accepted) in [(deep(5000), true), ("1e400".to_owned(), true), ("1e200000".to_owned(), false)] {
        let sql = "insert into integration.data_staging (source_app, target_app, record_type, data) \
                   values ('psql', 'billing', 'n', $1::text::jsonb)";
        assert_eq!(client.execute(sql, &[&payload]).await.is_ok(), accepted, "{}", &payload[..5]);
    }
    let fine = plain_insert(&client, "billing", "1").await;
    let broker = db.broker().await;
    let consumer = broker.consumer("billing").on("n", |_: serde_json::Value, _| async { Ok(Outcome::Done) });
    let consumer = consumer.start().await.unwrap();
    until_status(&client, fine, "completed").await;
    let unreadable =
        "select count(*) = 2 from integration.dead_letters where reason like 'the payload cannot be read as%'";
    crate::support::until(&client, "both fail alone", unreadable).await;
    consumer.shutdown().await.unwrap();
}

/// No headers that a publisher can write are such; where somebody took the rule from the table, or another version writes
/// others, the claim of all must not fail for one.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_headers_cannot_be_read_fails_alone_leased_or_held() {
    for hold in [None, Some(std::time::Duration::from_secs(1))] {
        let db = Database::new().await;
        let client = db.client().await;
        client
            .batch_execute(
                "begin; \
                 insert into integration.data_staging (source_app, target_app, record_type, data) \
                     select 'psql', 'billing', 'n', to_jsonb(n) from generate_series(1, 3) n; \
                 set local session_replication_role = replica; \
                 update integration.data_staging set headers = '[\"sesame\"]' where data = '2'; \
                 commit",
            )
            .await
            .unwrap();
        let (tell, mut told) = seen();
        let config = doorbell::ConsumerConfig { hold, ..bells_only() };
        let broker = db.broker().await;
        let consumer = broker.consumer("billing").config(config);
        let consumer = match hold {
            None => consumer.on("n", move |n: i64, _| {
                let _ = tell.send(n);
                async { Ok(Outcome::Done) }
            }),
            Some(_) => consumer.on_tx("n", move |n: i64, _, _| {
                let _ = tell.send(n);
                Box::pin(async { Ok(Outcome::Done) })
            }),
        };
        let consumer = consumer.start().await.unwrap();
        crate::support::until_count(&client, "completed", 2).await;
        let failed = until_status(&client, 2, "failed").await;
        assert_eq!(failed.attempt, 1, "{failed:?}");
        let reason = failed.reason();
        assert!(reason.contains("headers cannot be read") && !reason.contains("sesame"), "{reason}");
        assert!(told.rest().all(|n| n != 2), "its handler was not asked");
        consumer.shutdown().await.unwrap();
    }
}
