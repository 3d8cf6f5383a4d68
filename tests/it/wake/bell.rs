//! The bell: every way in which a message becomes pending wakes an idle consumer, once, and the sweep is the net below.

use std::time::Duration;

use doorbell::{ConsumerConfig, Outcome, observe::Found};

use crate::support::{
    Database, Ear, channel, count, echo, message, plain_insert, row, seen, until_a_bell, until_status,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_become_pending_wakes_a_consumer_that_sweeps_once_an_hour() {
    let db = Database::new().await;
    let broker = db.broker().await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    let client = db.client().await;
    let other = db.broker().await;
    let producer = other.producer("shop");
    until_a_bell(&producer, "billing", &mut told).await;
    let id = producer.publish(&message("billing", 0)).await.unwrap();
    told.next().await;
    until_status(&client, id, "completed").await;

    let mut woken = async |how: &str, count: usize| {
        for delivery in told.take(count).await {
            // Or by the look after the one before: nothing but a bell or that can be prompt.
            assert_ne!(delivery.found, Found::Sweep, "{how}");
            until_status(&client, delivery.id, "completed").await;
        }
    };
    producer.publish(&message("billing", 1)).await.unwrap();
    woken("publish", 1).await;
    plain_insert(&client, "billing", "2").await;
    woken("plain insert", 1).await;
    let copy = "copy integration.data_staging (source_app, target_app, record_type, data) \
        from program 'printf \"psql\\tbilling\\tn\\t3\\n\"'";
    client.batch_execute(copy).await.unwrap();
    woken("COPY", 1).await;
    let edit = "update integration.data_staging set status = 'pending' where id = $1";
    client.execute(edit, &[&id]).await.unwrap();
    woken("hand edit", 1).await;
    assert_eq!(other.operator().redrive(&[id]).await.unwrap(), [id]);
    woken("redrive", 1).await;
    assert_eq!(row(&client, id).await.redrive_count, 2);
    let moved =
        "insert into integration.data_staging (source_app, target_app, record_type, data) values ('a', 'x', 'b', '1')";
    client.execute(moved, &[]).await.unwrap();
    client
        .execute("update integration.data_staging set target_app = 'billing' where target_app = 'x'", &[])
        .await
        .unwrap();
    woken("moved from another target", 1).await;
    other.operator().pause("billing", None, None).await.unwrap();
    producer.publish(&message("billing", 4)).await.unwrap();
    assert!(other.operator().resume("billing").await.unwrap());
    woken("resume", 1).await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_rings_once_per_target_whatever_the_number_of_rows() {
    let db = Database::new().await;
    let client = db.client().await;
    let mut ear = Ear::on(&db, &["a", "b", "c"]).await;
    let insert = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        select 'psql', (array['a', 'b'])[1 + n % 2], 'n', '1' from generate_series(1, 2000) n";
    client.execute(insert, &[]).await.unwrap();
    let mut heard = ear.heard().await;
    heard.sort();
    let mut expected = [channel(&client, "a").await, channel(&client, "b").await];
    expected.sort();
    assert_eq!(heard, expected);
    client.execute("update integration.data_staging set status = 'failed'", &[]).await.unwrap();
    assert!(ear.heard().await.is_empty(), "nothing became pending");
    client.execute("update integration.data_staging set status = 'pending'", &[]).await.unwrap();
    assert_eq!(ear.heard().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_or_switched_off_rings_nothing() {
    let db = Database::new().await;
    let client = db.client().await;
    let mut ear = Ear::on(&db, &["billing"]).await;
    client.batch_execute("begin").await.unwrap();
    plain_insert(&client, "billing", "1").await;
    client.batch_execute("rollback").await.unwrap();
    assert!(ear.heard().await.is_empty());
    client.batch_execute("set integration.notify = off").await.unwrap();
    plain_insert(&client, "billing", "2").await;
    client.batch_execute("reset integration.notify").await.unwrap();
    assert!(ear.heard().await.is_empty());
    plain_insert(&client, "billing", "3").await;
    assert_eq!(ear.heard().await.len(), 1);
    client.batch_execute("insert into integration.targets (target_app, bell) values ('billing', 'off')").await.unwrap();
    plain_insert(&client, "billing", "4").await;
    assert!(ear.heard().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_finds_what_no_bell_announced() {
    let db = Database::new().await;
    let client = db.client().await;
    let (tell, mut told) = seen();
    let consumer = db
        .broker()
        .await
        .consumer("billing")
        .config(ConsumerConfig { sweep: Some(Duration::from_millis(50)), ..ConsumerConfig::default() })
        .fallback(move |delivery| {
            tell.send(delivery.found).unwrap();
            async { Ok(Outcome::Done) }
        });
    let consumer = consumer.start().await.unwrap();
    client.batch_execute("set integration.notify = off").await.unwrap();
    // The listener rings everything when it is up: that may find the first ones.
    loop {
        plain_insert(&client, "billing", "1").await;
        if told.next().await == Found::Sweep {
            break;
        }
    }
    client.batch_execute("reset integration.notify").await.unwrap();
    client.batch_execute("insert into integration.targets (target_app, bell) values ('billing', 'off')").await.unwrap();
    plain_insert(&client, "billing", "5").await;
    told.next().await;
    // Scheduled messages are announced by a bell, too.
    let producer = db.broker().await.producer("shop");
    producer.publish(&message("billing", 6).delay(Duration::from_millis(100))).await.unwrap();
    told.next().await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_somebody_else_scheduled_wakes_the_consumer_when_it_is_due() {
    let db = Database::new().await;
    let client = db.client().await;
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    let producer = db.broker().await.producer("shop");
    let hour = producer.publish(&message("billing", 1).delay(Duration::from_secs(3600))).await.unwrap();
    let soon = producer.publish(&message("billing", 2).delay(Duration::from_millis(200))).await.unwrap();
    assert_eq!(told.next().await.id, soon);
    let plain = "insert into integration.data_staging (source_app, target_app, record_type, data, status, available_at) \
        values ('psql', 'billing', 'n', '3', 'scheduled', now() + interval '200 ms') returning id";
    let plain: i64 = client.query_one(plain, &[]).await.unwrap().get(0);
    assert_eq!(told.next().await.id, plain);
    // An operator who does not want to wait.
    let hurry = "update integration.data_staging set available_at = now() + interval '200 ms' where id = $1";
    client.execute(hurry, &[&hour]).await.unwrap();
    assert_eq!(told.next().await.id, hour);
    assert_eq!(until_status(&client, hour, "completed").await.attempt, 1);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_scheduled_behind_one_that_is_promoted_before_the_commit_is_not_forgotten() {
    let db = Database::new().await;
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    let producer = db.broker().await.producer("shop");
    let earlier = producer.publish(&message("billing", 1).delay(Duration::from_secs(1))).await.unwrap();
    let mut client = db.client().await;
    let tx = client.transaction().await.unwrap();
    let later = producer.publish_in(&tx, &message("billing", 2).delay(Duration::from_millis(1500))).await.unwrap();
    assert_eq!(told.next().await.id, earlier);
    // By the time one more message has gone the whole way, the alarm clock has looked for what is due next, and did not
    // see what is not committed.
    until_status(&db.client().await, earlier, "completed").await;
    let between = producer.publish(&message("billing", 3)).await.unwrap();
    assert_eq!(told.next().await.id, between);
    tx.commit().await.unwrap();
    assert_eq!(told.next().await.id, later);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_message_due_earlier_than_all_others_rings_the_alarm_clock() {
    let db = Database::new().await;
    let client = db.client().await;
    let mut ear = Ear::on(&db, &["billing"]).await;
    let producer = db.broker().await.producer("shop");
    let due = format!("{}_due", channel(&client, "billing").await);
    for (minutes, rings) in [(60, true), (120, false), (30, true), (45, false)] {
        producer.publish(&message("billing", 1).delay(Duration::from_secs(minutes * 60))).await.unwrap();
        let heard = ear.heard().await;
        assert_eq!(heard, if rings { vec![due.clone()] } else { vec![] }, "in {minutes} minutes");
    }
    assert_eq!(count(&client, "select due_in_ms / 60000 from integration.next_due('{billing}')").await, 29);
}

/// Looking for what is due earlier would have each fail because of the other.
#[tokio::test(flavor = "multi_thread")]
async fn serializable_publishers_of_delayed_messages_are_in_nobodys_way() {
    let db = Database::new().await;
    let (one, other) = (db.client().await, db.client().await);
    for sql in [
        "begin isolation level serializable",
        "select integration.publish('shop', 'billing', 'n', '1', p_delay => '1 h')",
        "commit",
    ] {
        for client in [&one, &other] {
            client.batch_execute(sql).await.unwrap();
        }
    }
    assert_eq!(count(&one, "select count(*) from integration.data_staging where status = 'scheduled'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_differ_only_in_case_have_different_bells() {
    let db = Database::new().await;
    let client = db.client().await;
    let mut ear = Ear::on(&db, &["Billing", "billing"]).await;
    plain_insert(&client, "Billing", "1").await;
    assert_eq!(ear.heard().await, [channel(&client, "Billing").await]);
    assert_ne!(channel(&client, "Billing").await, channel(&client, "billing").await);
}
