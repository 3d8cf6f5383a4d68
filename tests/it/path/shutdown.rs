//! Stopping: what runs is finished, what did not start is given back, what does not finish in time, too.

use std::{sync::Arc, time::Duration};

use doorbell::{BrokerConfig, ConsumerConfig, Outcome};
use tokio::sync::{Barrier, watch};

use crate::support::{
    Database, HOUR, bells_only, count, echo, listeners, message, plain_insert, row, seen, soon, until, until_count,
    until_status,
};

/// Says when it is dropped.
struct Guard(tokio::sync::mpsc::UnboundedSender<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_handlers_are_waited_for_and_what_did_not_start_is_given_back_at_once() {
    let db = Database::new().await;
    let client = db.client().await;
    let (tell, mut told) = seen();
    let (go, going) = watch::channel(false);
    let config = ConsumerConfig { concurrency: 1, prefetch: Some(3), sweep: HOUR, ..Default::default() };
    let consumer = db.broker().await.consumer("billing").config(config).fallback(move |delivery| {
        tell.send(delivery.id).unwrap();
        let mut going = going.clone();
        async move {
            going.wait_for(|&go| go).await?;
            Ok(Outcome::Done)
        }
    });
    let messages: Vec<_> = (0..4).map(|n| message("billing", n)).collect();
    let ids = db.broker().await.producer("shop").publish_many(&messages).await.unwrap();
    let consumer = consumer.start().await.unwrap();
    assert_eq!(told.next().await, ids[0]);
    until_count(&client, "processing", 4).await;
    let stopping = tokio::spawn(consumer.shutdown());
    until_count(&client, "pending", 3).await;
    assert_eq!(row(&client, ids[0]).await.status, "processing");
    go.send_replace(true);
    soon("the consumer stops", stopping).await.unwrap().unwrap();
    assert_eq!(row(&client, ids[0]).await.status, "completed");
    for &id in &ids[1..] {
        let given_back = row(&client, id).await;
        assert_eq!((given_back.attempt, given_back.retry_count, given_back.crash_count), (1, 0, 0));
        assert_eq!(given_back.owner, None);
    }
    assert_eq!(told.rest().count(), 0, "nothing else was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_do_not_finish_in_time_are_dropped_and_their_messages_given_back() {
    let db = Database::new().await;
    let client = db.client().await;
    let (tell, mut told) = seen();
    let config = ConsumerConfig { sweep: HOUR, drain_timeout: Duration::from_millis(50), ..Default::default() };
    let consumer = db.broker().await.consumer("billing").config(config).fallback(move |_| {
        let guard = Guard(tell.clone());
        async move {
            guard.0.send("running")?;
            std::future::pending::<()>().await;
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    assert_eq!(told.next().await, "running");
    soon("the consumer stops", consumer.shutdown()).await.unwrap();
    assert_eq!(told.next().await, "dropped");
    let given_back = row(&client, id).await;
    assert_eq!((&*given_back.status, given_back.attempt, given_back.retry_count), ("pending", 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_broker_leaves_the_list_of_consumers() {
    let db = Database::new().await;
    let (broker, observer) = (db.broker().await, db.broker().await);
    let (consumer, _told) = echo(&broker, "billing").await;
    let registered = observer.operator().processes().await.unwrap();
    assert_eq!((registered.len(), registered[0].alive), (1, true));
    assert!(registered[0].targets.contains("billing"));
    consumer.shutdown().await.unwrap();
    let producer = broker.producer("shop");
    broker.close().await;
    assert!(observer.operator().processes().await.unwrap().is_empty());
    assert_eq!(producer.publish(&message("billing", 1)).await.unwrap_err().kind(), doorbell::ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_gives_back_what_a_dropped_consumer_still_held() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let (tell, mut told) = seen();
    let consumer = broker.consumer("billing").config(bells_only()).fallback(move |_| {
        tell.send(()).unwrap();
        std::future::pending()
    });
    let consumer = consumer.start().await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    told.next().await;
    drop(consumer);
    broker.close().await;
    assert_eq!(until_status(&client, id, "pending").await.attempt, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_given_back_everything_does_not_register_again() {
    let db = Database::new().await;
    let client = db.client().await;
    let config = BrokerConfig { beat: Duration::from_millis(50), ..BrokerConfig::default() };
    let broker = db.broker_with(config).await;
    let (tell, mut told) = seen();
    let consumer = broker.consumer("billing").config(bells_only()).fallback(move |_| {
        tell.send(()).unwrap();
        std::future::pending()
    });
    let consumer = consumer.start().await.unwrap();
    plain_insert(&client, "billing", "1").await;
    told.next().await;
    drop(consumer);
    // Whoever has another handle keeps the process from being put away with its heartbeat.
    let kept = broker.clone();
    broker.close().await;
    assert_eq!(count(&client, "select count(*) from integration.processes").await, 0);
    // The handler goes on and the consumer drains: a beat, which comes every 50 ms, would find the lease lost and register.
    let again = until(&client, "it is registered", "select count(*) > 0 from integration.processes");
    assert!(tokio::time::timeout(Duration::from_secs(1), again).await.is_err());
    drop(kept);
}

/// Claims wait for a lock that somebody else has.
const CLAIMS_WAIT: &str = "create function wait() returns trigger language plpgsql as \
        'begin perform pg_advisory_xact_lock_shared(4711); return new; end'; \
    create trigger wait before update on integration.data_staging for each row when (new.status = 'processing') \
        execute function wait(); \
    select pg_advisory_lock(4711)";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_claim_under_way_takes_while_its_process_ends_is_given_back() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(CLAIMS_WAIT).await.unwrap();
    let broker = db.broker().await;
    let (tell, mut told) = seen();
    let config = ConsumerConfig { hold: None, ..bells_only() };
    let consumer = broker.consumer("billing").config(config).fallback(move |delivery| {
        tell.send(delivery.id).unwrap();
        async { Ok(Outcome::Done) }
    });
    let consumer = consumer.start().await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    let waits = "select exists (select from pg_locks where locktype = 'advisory' and not granted and objid = 4711)";
    until(&client, "a claim waits", waits).await;
    drop(consumer);
    let mut closing = tokio::spawn(broker.close());
    // It is not to end before the claim; when it does, the claim comes too late.
    let _ = tokio::time::timeout(Duration::from_millis(500), &mut closing).await;
    client.batch_execute("select pg_advisory_unlock(4711)").await.unwrap();
    if !closing.is_finished() {
        soon("it has closed", closing).await.unwrap();
    }
    until(
        &client,
        "its sessions are gone",
        "select count(*) = 1 from pg_stat_activity where datname = current_database()",
    )
    .await;
    let given_back = row(&client, id).await;
    assert_eq!((&*given_back.status, given_back.crash_count, given_back.owner), ("pending", 0, None));
    assert_eq!(told.rest().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_consumers_of_one_target_in_one_process_share_the_work() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    // Each handler waits for the other: one consumer alone would wait for ever.
    let together = Arc::new(Barrier::new(2));
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let together = together.clone();
        let config = ConsumerConfig { concurrency: 1, prefetch: Some(0), sweep: HOUR, ..Default::default() };
        let consumer = broker.consumer("billing").config(config).fallback(move |_| {
            let together = together.clone();
            async move {
                together.wait().await;
                Ok(Outcome::Done)
            }
        });
        consumers.push(consumer.start().await.unwrap());
    }
    for n in 0..20 {
        plain_insert(&client, "billing", &n.to_string()).await;
    }
    until_count(&client, "completed", 20).await;
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_consumers_in_one_process_share_its_few_connections() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let targets: Vec<String> = (0..200).map(|n| format!("target {n}")).collect();
    let started = futures::future::join_all(targets.iter().map(|target| echo(&broker, target))).await;
    let publisher = db.broker().await;
    let messages: Vec<_> = targets.iter().map(|target| message(target, 1)).collect();
    let ids = publisher.producer("shop").publish_many(&messages).await.unwrap();
    assert_eq!(listeners(&client).await.len(), 1);
    for ((consumer, mut told), id) in started.into_iter().zip(ids) {
        assert_eq!(told.next().await.id, id);
        consumer.shutdown().await.unwrap();
    }
    publisher.close().await;
    // Ten of the pool, the listener, the heartbeat, and ours; the publisher's may still be on their way out.
    let few = "select count(*) <= 13 from pg_stat_activity where datname = current_database()";
    until(&client, "few sessions are left", few).await;
}
