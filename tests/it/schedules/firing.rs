//! One message per tick, whoever is there.

use std::time::Duration;

use doorbell::operate::{Missed, Operator, Schedule, When};
use tokio_postgres::Client;

use crate::{
    doors::answer,
    support::{Database, connect, count, echo, grants, message, soon, stop_the_clock},
};

const MESSAGES: &str = "select count(*) from integration.data_staging";

async fn every(operator: &Operator, seconds: u64, missed: Missed) {
    let when = When::Every(Duration::from_secs(seconds));
    operator.schedule(&Schedule { missed, ..Schedule::new("poll", when, message("billing", 7)) }).await.unwrap();
}

/// Fires what is due, and says what the messages of the schedule stand for.
async fn fired(client: &Client) -> Vec<(String, Option<String>)> {
    client.batch_execute("select integration.fire_due()").await.unwrap();
    let sql = "select headers ->> 'tick', headers ->> 'missed' from integration.data_staging order by id";
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tick_is_fired_once_by_eight_who_all_want_to() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    every(&db.broker().await.operator(), 1, Missed::Latest).await;
    let mut eight = Vec::new();
    for _ in 0..8 {
        eight.push(db.client().await);
    }
    for second in 0..40 {
        stop_the_clock(&client, second).await;
        let all = eight
            .iter()
            .map(|client| client.batch_execute("select integration.promote('{billing}'), integration.fire_due()"));
        soon("all have tried", futures::future::join_all(all)).await.into_iter().for_each(|tried| tried.unwrap());
        // Somebody may have held the row while the others looked, and then failed.
        client.batch_execute("select integration.fire_due()").await.unwrap();
    }
    let once =
        "select (count(*) = 40 and count(distinct headers ->> 'tick') = 40)::int::bigint from integration.data_staging";
    assert_eq!(count(&client, once).await, 1);
    let told = "select fired from integration.schedules";
    assert_eq!(count(&client, told).await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_whose_transaction_is_rolled_back_is_fired_by_the_next() {
    let db = Database::new().await;
    let client = db.client().await;
    every(&db.broker().await.operator(), 3600, Missed::Latest).await;
    client.batch_execute("begin; select integration.fire_due(); rollback").await.unwrap();
    assert_eq!(fired(&client).await.len(), 1);
    assert_eq!(fired(&client).await.len(), 1, "the next tick is in an hour");
}

#[tokio::test(flavor = "multi_thread")]
async fn missed_ticks_are_made_up_for_as_the_schedule_says() {
    for (missed, expected) in [(Missed::Latest, 1), (Missed::All, 11), (Missed::Skip, 0)] {
        let db = Database::new().await;
        let client = db.client().await;
        stop_the_clock(&client, 0).await;
        every(&db.broker().await.operator(), 3600, missed).await;
        stop_the_clock(&client, 10 * 3600 + 600).await;
        let told = fired(&client).await;
        assert_eq!(told.len(), expected, "{missed:?}: {told:?}");
        if missed == Missed::Latest {
            assert_eq!(told[0], ("2026-03-01T22:00:00.000Z".into(), Some("10".into())));
        }
        stop_the_clock(&client, 11 * 3600).await;
        let told = fired(&client).await;
        assert_eq!(told.len(), expected + 1);
        assert_eq!(told[expected], ("2026-03-01T23:00:00.000Z".into(), None));
        // Years, of which not every tick is looked at.
        client
            .batch_execute("update integration.schedules set next_at = '2001-01-01Z', starts_at = '2001-01-01Z'")
            .await
            .unwrap();
        let told = fired(&client).await;
        let more = match missed {
            Missed::All => 100,
            _ => 1,
        };
        assert_eq!(told.len(), expected + 1 + more, "{missed:?}");
        assert_eq!(
            count(&client, "select (next_at > integration.clock())::int::bigint from integration.schedules").await,
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_skips_overlaps_waits_for_the_end_of_its_last_message() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let when = When::Cron { expression: "* * * * *".into(), zone: "Asia/Kathmandu".into() };
    let wanted = Schedule { skip_overlap: true, ..Schedule::new("report", when, message("billing", 1).priority(4)) };
    let operator = db.broker().await.operator();
    operator.schedule(&wanted).await.unwrap();
    for (second, messages) in [(0, 1), (60, 1), (120, 1)] {
        stop_the_clock(&client, second).await;
        assert_eq!(fired(&client).await.len(), messages);
    }
    client.batch_execute("update integration.data_staging set status = 'completed'").await.unwrap();
    stop_the_clock(&client, 180).await;
    assert_eq!(fired(&client).await.len(), 2);
    let skipped = "select count(*) from integration.audit_log where action = 'overlapped'";
    assert_eq!(count(&client, skipped).await, 2);
    assert_eq!(count(&client, "select sum(priority)::bigint from integration.data_staging").await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_paused_resumed_fired_by_hand_changed_and_ended_by_its_name() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let operator = db.broker().await.operator();
    every(&operator, 60, Missed::Latest).await;
    assert_eq!(fired(&client).await.len(), 1);
    stop_the_clock(&client, 30).await;
    every(&operator, 60, Missed::Latest).await;
    let next = "select (next_at = '2026-03-01 12:01Z')::int::bigint from integration.schedules";
    assert_eq!(count(&client, next).await, 1, "who says the same again moves nothing");
    assert!(operator.pause_schedule("poll", true).await.unwrap());
    assert!(!operator.pause_schedule("poll", true).await.unwrap());
    stop_the_clock(&client, 200).await;
    assert_eq!(fired(&client).await.len(), 1);
    assert!(operator.schedules().await.unwrap()[0].paused_by.is_some());
    assert!(operator.fire_schedule("poll").await.unwrap() > 1);
    assert!(operator.pause_schedule("poll", false).await.unwrap());
    assert_eq!(fired(&client).await.last().unwrap().1.as_deref(), Some("2"));
    every(&operator, 600, Missed::Latest).await;
    assert_eq!(
        count(&client, "select (next_at = integration.clock())::int::bigint from integration.schedules").await,
        1
    );
    assert!(operator.unschedule("poll").await.unwrap());
    assert!(!operator.unschedule("poll").await.unwrap());
    assert_eq!(operator.fire_schedule("poll").await.unwrap_err().kind(), doorbell::ErrorKind::NotFound);
    assert_eq!(count(&client, MESSAGES).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_cannot_publish_stops_no_other_and_no_publisher_may_make_one() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let operator = db.broker().await.operator();
    every(&operator, 60, Missed::Latest).await;
    let bad = "insert into integration.schedules (name, source_app, target_app, record_type, data, every, next_at, ordering_key) \
        values ('bad', 'shop', 'billing', 'n', '1', '1 min', integration.clock(), repeat('k', 300))";
    client.batch_execute(bad).await.unwrap();
    assert_eq!(fired(&client).await.len(), 1);
    let waits = "select count(*) from integration.schedules where name = 'bad' and next_at <= integration.clock()";
    assert_eq!(count(&client, waits).await, 1);
    let name = format!("publisher_{}", db.name());
    client.batch_execute(&format!("create role {name} login; {}", grants("publisher", &name))).await.unwrap();
    let publisher = connect(&db.url.replace("user=postgres", &format!("user={name}"))).await;
    for call in
        ["schedule('x', 'billing', 'n', p_every => '1 h')", "unschedule('poll')", "fire_due()", "fire_schedule('poll')"]
    {
        assert_eq!(answer(&publisher, &format!("select integration.{call}")).await, "42501", "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_fire_schedules_by_themselves() {
    let db = Database::new().await;
    let broker = db.broker().await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    every(&broker.operator(), 1, Missed::All).await;
    for _ in 0..3 {
        let delivery = told.next().await;
        assert_eq!((delivery.payload(), delivery.headers.get("schedule").map(String::as_str)), ("7", Some("poll")));
    }
    consumer.shutdown().await.unwrap();
}
