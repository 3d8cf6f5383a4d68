//! What somebody takes away from a running handler: it is stopped, its place is free, and nobody handles it twice.

use std::time::Duration;

use doorbell::{BrokerConfig, ConsumerConfig, Outcome};
use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::support::{Database, bells_only, count, plain_insert, row, seen, soon, until, until_status};

/// Tells when it is dropped.
struct Dropped(i64, mpsc::UnboundedSender<i64>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.1.send(self.0);
    }
}

fn one_at_a_time() -> ConsumerConfig {
    // Only its end can free the place of a handler, and only being taken can end it.
    let hours = Duration::from_secs(7200);
    ConsumerConfig { concurrency: 1, prefetch: Some(0), handler_timeout: None, drain_timeout: hours, ..bells_only() }
}

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_whose_message_is_taken_away_is_dropped_and_its_place_is_free() {
    for take in [
        "select integration.cancel('{1}', 'hangs')",
        "select integration.cancel('{1}'); select integration.redrive_many(array[1])",
        "update integration.data_staging set status = 'scheduled', available_at = now() + interval '1 h' where id = 1",
        "update integration.data_staging set status = 'failed', error_message = 'by hand' where id = 1",
        "update integration.data_staging set status = 'completed' where id = 1",
        "update integration.data_staging set owner = 'somebody else', lease_until = now() + interval '1 h' where id = 1",
        "delete from integration.data_staging where id = 1",
    ] {
        let db = Database::new().await;
        let (client, broker) = (db.client().await, db.broker().await);
        assert_eq!(plain_insert(&client, "billing", "\"hang\"").await, 1);
        let (tell, mut dropped) = seen();
        let (begin, mut begun) = seen();
        let consumer = broker.consumer("billing").config(one_at_a_time()).fallback(move |delivery| {
            let (guard, begin) = (Dropped(delivery.id, tell.clone()), begin.clone());
            async move {
                let _guard = guard;
                let _ = begin.send((delivery.id, delivery.attempt));
                if (delivery.id, delivery.attempt) == (1, 1) {
                    std::future::pending::<()>().await;
                }
                Ok(Outcome::Done)
            }
        });
        let consumer = consumer.start().await.unwrap();
        assert_eq!(begun.next().await, (1, 1), "{take}");
        run(&client, take).await;
        let next = plain_insert(&client, "billing", "2").await;
        assert_eq!(dropped.next().await, 1, "{take}");
        until_status(&client, next, "completed").await;
        // What the taken one's handler would have said is not said.
        let taken = "select coalesce((select status || attempt from integration.data_staging where id = 1), 'gone')";
        let status: String = client.query_one(taken, &[]).await.unwrap().get(0);
        let redriven = take.contains("redrive");
        let expected: &[&str] = match take {
            _ if redriven => &["pending3", "processing4", "completed4", "pending2", "processing3", "completed3"],
            _ if take.starts_with("delete") => &["gone"],
            _ if take.contains("somebody else") => &["processing1"],
            _ if take.contains("cancel") => &["cancelled2"],
            _ if take.contains("'scheduled'") => &["scheduled2"],
            _ if take.contains("'failed'") => &["failed2"],
            _ => &["completed2"],
        };
        assert!(expected.contains(&status.as_str()), "{take}: {status}");
        soon("it does not wait for what was taken", consumer.shutdown()).await.unwrap();
        broker.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_is_taken_away_frees_its_place_for_the_next_suspect() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    for _ in 0..2 {
        plain_insert(&client, "billing", "1").await;
    }
    run(&client, "select integration.claim('billing', 'dead', 2, p_lease => '-1 s'); select integration.maintain()")
        .await;
    assert_eq!(count(&client, "select count(*) from integration.data_staging where crash_count = 1").await, 2);
    let (begin, mut begun) = seen();
    let consumer = broker.consumer("billing").config(one_at_a_time()).fallback(move |delivery| {
        let begin = begin.clone();
        async move {
            let _ = begin.send(delivery.id);
            if delivery.id == 1 {
                std::future::pending::<()>().await;
            }
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    assert_eq!(begun.next().await, 1);
    run(&client, "select integration.cancel('{1}')").await;
    assert_eq!(begun.next().await, 2);
    until_status(&client, 2, "completed").await;
    soon("it ends", consumer.shutdown()).await.unwrap();
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_drains_does_not_wait_for_a_handler_whose_message_was_taken_away() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    plain_insert(&client, "billing", "1").await;
    let (begin, mut begun) = seen();
    let consumer = broker.consumer("billing").config(one_at_a_time()).fallback(move |delivery| {
        let _ = begin.send(delivery.id);
        std::future::pending()
    });
    let consumer = consumer.start().await.unwrap();
    begun.next().await;
    let stopping = tokio::spawn(consumer.shutdown());
    run(&client, "select integration.cancel('{1}')").await;
    soon("it ends long before its drain is over", stopping).await.unwrap().unwrap();
    assert_eq!(row(&client, 1).await.status, "cancelled");
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_effects_of_a_transactional_handler_whose_message_is_taken_away_are_undone() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    run(&client, "create table effects (id bigint)").await;
    plain_insert(&client, "billing", "1").await;
    let (begin, mut begun) = seen();
    let consumer = broker.consumer("billing").config(one_at_a_time()).on_tx("n", move |_: i64, delivery, tx| {
        let begin = begin.clone();
        Box::pin(async move {
            tx.execute("insert into effects values ($1)", &[&delivery.id]).await?;
            let _ = begin.send(delivery.id);
            if delivery.id == 1 {
                std::future::pending::<()>().await;
            }
            Ok(Outcome::Done)
        })
    });
    let consumer = consumer.start().await.unwrap();
    begun.next().await;
    run(&client, "select integration.cancel('{1}')").await;
    let next = plain_insert(&client, "billing", "2").await;
    until_status(&client, next, "completed").await;
    until(&client, "the transaction is rolled back", "select count(*) = 1 and min(id) = 2 from effects").await;
    let open = "select count(*) = 0 from pg_stat_activity \
                where datname = current_database() and state like 'idle in transaction%'";
    until(&client, "no transaction stays open", open).await;
    soon("it ends", consumer.shutdown()).await.unwrap();
    broker.close().await;
}

/// Its own completions are no theft, also where they delete the message.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_completes_itself_is_not_called_taken() {
    let db = Database::new().await;
    let client = db.client().await;
    run(&client, "insert into integration.targets (target_app, on_complete) values ('billing', 'delete')").await;
    let beat = Duration::from_millis(5);
    let broker = db.broker_with(BrokerConfig { beat, ..BrokerConfig::default() }).await;
    let (tell, mut told) = seen();
    let consumer = broker.consumer("billing").config(one_at_a_time()).on_tx("n", move |n: i64, _, _| {
        let tell = tell.clone();
        Box::pin(async move {
            let _ = tell.send(n);
            Ok(Outcome::Done)
        })
    });
    let consumer = consumer.start().await.unwrap();
    for n in 0..50 {
        plain_insert(&client, "billing", &n.to_string()).await;
    }
    assert_eq!(told.take(50).await, (0..50).collect::<Vec<_>>());
    until(&client, "all are gone", "select count(*) = 0 from integration.data_staging").await;
    soon("it ends", consumer.shutdown()).await.unwrap();
    broker.close().await;
}
