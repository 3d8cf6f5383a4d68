//! Somebody has a row locked, over lunch.

use std::sync::Arc;

use doorbell::{ConsumerConfig, Outcome};
use tokio::sync::Semaphore;
use tokio_postgres::Client;

use super::{aside, one_bad_among, with_status};
use crate::support::{Database, bells_only, count, plain_insert, seen, until_count, until_status};

/// A person in the middle of something.
async fn person(db: &Database, id: i64) -> Client {
    let person = db.client().await;
    let lock = format!("begin; select from integration.data_staging where id = {id} for update");
    person.batch_execute(&lock).await.unwrap();
    person
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_delays_its_own_settle_and_nobody_elses() {
    let db = Database::new().await;
    let client = db.client().await;
    let gate = Arc::new(Semaphore::new(0));
    let (tell, mut told) = seen();
    let broker = db.broker().await;
    let config = ConsumerConfig { concurrency: 1, ..bells_only() };
    let opened = gate.clone();
    let consumer = broker.consumer("billing").config(config).fallback(move |delivery| {
        let (tell, gate) = (tell.clone(), gate.clone());
        async move {
            tell.send(delivery.id)?;
            gate.acquire().await?.forget();
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    let first = plain_insert(&client, "billing", "1").await;
    assert_eq!(told.next().await, first);
    let person = person(&db, first).await;
    opened.add_permits(21);
    client
        .batch_execute(
            "insert into integration.data_staging (source_app, target_app, record_type, data) \
        select 'shop', 'billing', 'n', '1' from generate_series(1, 20)",
        )
        .await
        .unwrap();
    until_count(&client, "completed", 20).await;
    assert_eq!(aside(&client, first).await, ("complete".to_owned(), "55P03".to_owned()));
    let why = broker.operator().explain(first).await.unwrap();
    assert_eq!(why[0].code, "set_aside");
    person.batch_execute("rollback").await.unwrap();
    let completed = until_status(&client, first, "completed").await;
    assert_eq!(completed.attempt, 1);
    assert_eq!(told.rest().count(), 20, "each was handled once");
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_rows_are_left_out_of_promote_rescue_archive_and_purge() {
    let db = Database::new().await;
    let client = db.client().await;
    for (prepare, verb, done) in [
        ("status = 'scheduled', available_at = integration.clock()", "promoted", "pending"),
        ("status = 'processing', owner = 'dead-1', attempt = 1", "rescued", "pending"),
        ("status = 'completed', processed_at = integration.clock() - interval '1 year'", "archived", "gone"),
        ("status = 'failed', updated_at = integration.clock() - interval '1 year'", "purged", "gone"),
    ] {
        client.batch_execute("delete from integration.data_staging").await.unwrap();
        let locked = one_bad_among(&client, "billing", 3).await;
        client.batch_execute(&format!("update integration.data_staging set {prepare}")).await.unwrap();
        let person = person(&db, locked).await;
        let maintain = format!("select coalesce({verb}, -1)::bigint from integration.maintain()");
        assert_eq!(count(&client, &maintain).await, 3, "{verb}");
        if done != "gone" {
            assert_eq!(with_status(&client, "billing", done).await, 3);
        }
        person.batch_execute("rollback").await.unwrap();
        assert_eq!(count(&client, &maintain).await, 1, "{verb}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_is_left_out_of_redrive_and_cancel_and_who_asks_for_it_alone_is_told() {
    let db = Database::new().await;
    let client = db.client().await;
    let locked = one_bad_among(&client, "billing", 3).await;
    let ids: Vec<i64> = (locked..=locked + 3).collect();
    let operator = db.broker().await.operator();
    let person = person(&db, locked).await;
    assert_eq!(operator.cancel(&ids, None).await.unwrap().len(), 3);
    let error = operator.cancel(&[locked], None).await.unwrap_err();
    assert!(error.sqlstate() == Some("55P03") && error.to_string().contains("explain"), "{error}");
    person.batch_execute("rollback").await.unwrap();
    assert_eq!(operator.cancel(&[locked], None).await.unwrap(), [locked]);
    let person = self::person(&db, locked).await;
    assert_eq!(operator.redrive(&ids).await.unwrap().len(), 3);
    person.batch_execute("rollback").await.unwrap();
    assert_eq!(operator.redrive(&ids).await.unwrap(), [locked]);
}
