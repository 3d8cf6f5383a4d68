//! What goes before others of its key, and every way in which it ends or changes.

use std::sync::Arc;

use doorbell::{Broker, Consumer, Outcome};
use tokio::sync::Semaphore;

use super::{Runs, keyed};
use crate::support::{Database, Seen, bells_only, seen, until, until_count, until_status};

const STAND: &str =
    "select count(*) = 2 from integration.data_staging where status = 'scheduled' and behind_at is not null";

/// Publishes three messages of a key to a consumer, the first of which fails for good until it is redriven; returns when
/// the others stand behind it.
async fn blocked(db: &Database, broker: &Broker) -> (Consumer, Seen<i64>) {
    let (tell, mut told) = seen();
    let consumer = broker.consumer("billing").config(bells_only()).on("n", move |n: i64, delivery| {
        let _ = tell.send(n);
        async move {
            let fails = n == 1 && delivery.redrive_count == 0;
            Ok(if fails { Outcome::reject("no such order") } else { Outcome::Done })
        }
    });
    let consumer = consumer.start().await.unwrap();
    let messages = [keyed("a", 1), keyed("a", 2), keyed("a", 3)];
    let ids = broker.producer("shop").publish_many(&messages).await.unwrap();
    let client = db.client().await;
    assert_eq!(told.next().await, 1);
    until_status(&client, ids[0], "failed").await;
    until(&client, "the others stand behind it", STAND).await;
    (consumer, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocker_that_is_cancelled_deleted_moved_or_put_back_by_any_verb_lets_its_key_go_on_at_once() {
    for (end, goes_on) in [
        ("update integration.data_staging set status = 'cancelled' where id = 1", &[2, 3][..]),
        ("delete from integration.data_staging where id = 1", &[2, 3]),
        ("update integration.data_staging set status = 'completed' where id = 1", &[2, 3]),
        ("update integration.data_staging set ordering_key = 'b' where id = 1", &[2, 3]),
        ("update integration.data_staging set ordering_key = null where id = 1", &[2, 3]),
        ("select integration.redrive(1)", &[1, 2, 3]),
        ("select integration.redrive_many('{1}')", &[1, 2, 3]),
        ("update integration.data_staging set status = 'pending' where id = 1", &[1, 2, 3]),
    ] {
        let db = Database::new().await;
        let (client, broker) = (db.client().await, db.broker().await);
        let (consumer, mut told) = blocked(&db, &broker).await;
        client.batch_execute(end).await.unwrap();
        assert_eq!(told.take(goes_on.len()).await, goes_on, "{end}");
        until_count(&client, "scheduled", 0).await;
        consumer.shutdown().await.unwrap();
        assert_eq!(told.rest().count(), 0, "{end}");
        broker.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_told_to_skip_what_failed_goes_on_with_what_stood_behind_it() {
    let db = Database::new().await;
    let broker = db.broker().await;
    let (consumer, mut told) = blocked(&db, &broker).await;
    broker.operator().set_target("billing", r#"{"key_failed": "skip"}"#).await.unwrap();
    assert_eq!(told.take(2).await, [2, 3]);
    // What is put back afterwards is one of its key like all others.
    assert_eq!(broker.operator().redrive(&[1]).await.unwrap(), [1]);
    assert_eq!(told.next().await, 1);
    until_count(&db.client().await, "completed", 3).await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_does_to_a_message_while_it_runs_breaks_neither_the_order_nor_the_one_at_a_time() {
    let edit = |set: &str| format!("update integration.data_staging set {set} where id = 1");
    for (end, expected) in [
        (edit("status = 'pending'"), &[1, 1, 2, 3][..]),
        (edit("status = 'scheduled', available_at = now()"), &[1, 1, 2, 3]),
        (edit("status = 'cancelled'"), &[1, 2, 3]),
        (edit("status = 'completed'"), &[1, 2, 3]),
        ("select integration.cancel('{1}')".to_owned(), &[1, 2, 3]),
        ("delete from integration.data_staging where id = 1".to_owned(), &[1, 2, 3]),
    ] {
        let db = Database::new().await;
        let (client, broker) = (db.client().await, db.broker().await);
        let (runs, gate, (tell, mut told)) = (Runs::default(), Arc::new(Semaphore::new(0)), seen());
        let noted = runs.clone();
        let consumer = broker.consumer("billing").config(bells_only()).on("n", move |n: i64, delivery| {
            let (running, gate) = (Running::of(&noted), gate.clone());
            let _ = tell.send(n);
            async move {
                let _running = running;
                if n == 1 && delivery.attempt == 1 {
                    let _never = gate.acquire().await;
                }
                tokio::task::yield_now().await;
                Ok(Outcome::Done)
            }
        });
        let consumer = consumer.start().await.unwrap();
        let messages = [keyed("a", 1), keyed("a", 2), keyed("a", 3)];
        broker.producer("shop").publish_many(&messages).await.unwrap();
        assert_eq!(told.next().await, 1);
        client.batch_execute(&end).await.unwrap();
        assert_eq!(told.take(expected.len() - 1).await, expected[1..], "{end}");
        until(&client, "all is done", "select integration.is_drained('billing')").await;
        consumer.shutdown().await.unwrap();
        assert_eq!((runs.0.lock().unwrap().overlaps.as_slice(), told.rest().count()), ([].as_slice(), 0), "{end}");
        broker.close().await;
    }
}

/// That a handler of the key a runs, until it has ended or was cancelled.
struct Running(Runs);

impl Running {
    fn of(runs: &Runs) -> Self {
        runs.begin("a");
        Self(runs.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end("a", 0, false);
    }
}
