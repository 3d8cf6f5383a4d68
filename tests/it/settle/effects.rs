//! Transactional handlers: effects and completion commit together or not at all.

use std::time::Duration;

use doorbell::{ConsumerConfig, Message, Outcome};
use futures::FutureExt;

use crate::support::{Database, count, until};

const LEDGER: &str = "create table ledger (message_id bigint, n int)";

#[tokio::test(flavor = "multi_thread")]
async fn effects_and_completion_commit_together_whatever_the_handler_says() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(LEDGER).await.unwrap();
    client.batch_execute("update integration.settings set backoff_base_ms = 0").await.unwrap();
    for hold in [None, ConsumerConfig::default().hold] {
        client.batch_execute("truncate ledger; delete from integration.data_staging").await.unwrap();
        let broker = db.broker().await;
        let messages: Vec<Message> = (0..100).map(|n| Message::new("billing", "n", &n).unwrap()).collect();
        broker.producer("shop").publish_many(&messages).await.unwrap();
        let consumer = broker
            .consumer("billing")
            .config(ConsumerConfig { hold, ..ConsumerConfig::default() })
            .on_tx("n", |n: i32, delivery, tx| {
                async move {
                    tx.execute("insert into ledger values ($1, $2)", &[&delivery.id, &n]).await?;
                    match n % 10 {
                        1 if delivery.attempt == 1 => Err("the first attempt fails".into()),
                        2 if delivery.attempt == 1 => panic!("the first attempt panics"),
                        3 => Ok(Outcome::reject("a third")),
                        _ => Ok(Outcome::Done),
                    }
                }
                .boxed()
            })
            .start()
            .await
            .unwrap();
        let ended = "select count(*) = 100 from integration.data_staging where status in ('completed', 'failed')";
        until(&client, "all have ended", ended).await;
        consumer.shutdown().await.unwrap();
        assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'failed'").await, 10);
        assert_eq!(count(&client, "select count(*) from ledger").await, 90);
        let odd = "select count(*) from integration.data_staging d full join ledger l on l.message_id = d.id \
                   where (d.status = 'completed') is distinct from (l.message_id is not null)";
        assert_eq!(count(&client, odd).await, 0);
    }
}

/// Each adds to the same row, as transactions that are serialized may not side by side; whichever of them fails, fails
/// because of the others and not because of its message.
#[tokio::test(flavor = "multi_thread")]
async fn conflicts_of_transactions_cost_no_retry_however_many_there_are() {
    let db = Database::new().await;
    let client = db.client().await;
    let setup = format!(
        "create table account (cents int); insert into account values (0); \
         update integration.settings set max_retries = 0; \
         alter database {} set default_transaction_isolation = 'serializable'",
        db.name()
    );
    client.batch_execute(&setup).await.unwrap();
    let broker = db.broker().await;
    let messages: Vec<Message> = (0..20).map(|n| Message::new("billing", "n", &n).unwrap()).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    let config = ConsumerConfig { hold: None, concurrency: 4, ..ConsumerConfig::default() };
    let both_have_read = std::sync::Arc::new(tokio::sync::Barrier::new(2));
    let consumer = broker.consumer("billing").config(config).on_tx("n", move |n: i32, delivery, tx| {
        let both_have_read = both_have_read.clone();
        async move {
            tx.query_one("select cents from account", &[]).await?;
            if n < 2 && delivery.attempt == 1 {
                both_have_read.wait().await;
            }
            tx.execute("update account set cents = cents + 1", &[]).await?;
            Ok(Outcome::Done)
        }
        .boxed()
    });
    let consumer = consumer.start().await.unwrap();
    let ended = "select count(*) = 20 from integration.data_staging where status in ('completed', 'failed')";
    until(&client, "all have ended", ended).await;
    consumer.shutdown().await.unwrap();
    assert_eq!(count(&client, "select cents::bigint from account").await, 20);
    assert_eq!(count(&client, "select count(*) from integration.data_staging where retry_count > 0").await, 0);
    let again = count(&client, "select count(*) from integration.audit_log where action = 'snoozed'").await;
    assert!(again > 0, "the first two were in each other's way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_lost_its_lease_leaves_no_effect() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(LEDGER).await.unwrap();
    let broker = db.broker().await;
    let (started, mut told) = crate::support::seen();
    let go = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let gate = go.clone();
    let consumer = broker
        .consumer("billing")
        .config(ConsumerConfig { sweep: None, hold: None, ..ConsumerConfig::default() })
        .on_tx("n", move |n: i32, delivery, tx| {
            let (started, gate) = (started.clone(), gate.clone());
            async move {
                tx.execute("insert into ledger values ($1, $2)", &[&delivery.id, &n]).await?;
                started.send(delivery.id)?;
                gate.acquire().await?.forget();
                Ok(Outcome::Done)
            }
            .boxed()
        })
        .start()
        .await
        .unwrap();
    let id = broker.producer("shop").publish(&Message::new("billing", "n", &1).unwrap()).await.unwrap();
    assert_eq!(told.next().await, id);
    // An operator takes the message away from its owner in mid-run.
    client.batch_execute("update integration.data_staging set status = 'cancelled'").await.unwrap();
    go.add_permits(1);
    consumer.shutdown().await.unwrap();
    assert_eq!(count(&client, "select count(*) from ledger").await, 0);
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'cancelled'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_hold_every_connection_keep_their_lease() {
    let db = Database::read_committed().await;
    let client = db.client().await;
    let config = doorbell::BrokerConfig {
        connections_max: 2,
        lease: Duration::from_millis(600),
        beat: Duration::from_millis(100),
        ..Default::default()
    };
    let broker = db.broker_with(config).await;
    let messages: Vec<Message> = (0..2).map(|n| Message::new("billing", "n", &n).unwrap()).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    let (started, mut told) = crate::support::seen();
    let go = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let gate = go.clone();
    let consumer = broker
        .consumer("billing")
        .config(ConsumerConfig { concurrency: 2, hold: None, ..ConsumerConfig::default() })
        .on_tx("n", move |_: i32, delivery, _tx| {
            let (started, gate) = (started.clone(), gate.clone());
            async move {
                started.send(delivery.id)?;
                gate.acquire().await?.forget();
                Ok(Outcome::Done)
            }
            .boxed()
        });
    let consumer = consumer.start().await.unwrap();
    told.take(2).await;
    let beats =
        "select beat_at > started_at + interval '2 s' and lease_until > integration.clock() from integration.processes";
    until(&client, "it has beaten for longer than its lease", beats).await;
    go.add_permits(10);
    consumer.shutdown().await.unwrap();
    assert_eq!(
        count(&client, "select count(*) from integration.data_staging where status = 'completed' and attempt = 1")
            .await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_times_out_leaves_no_effect_and_is_retried() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(LEDGER).await.unwrap();
    client.batch_execute("update integration.settings set backoff_base_ms = 0").await.unwrap();
    let broker = db.broker().await;
    let consumer = broker
        .consumer("billing")
        .config(ConsumerConfig { handler_timeout: Some(Duration::from_millis(300)), ..ConsumerConfig::default() })
        .on_tx("n", |n: i32, delivery, tx| {
            async move {
                tx.execute("insert into ledger values ($1, $2)", &[&delivery.id, &n]).await?;
                if delivery.attempt == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(Outcome::Done)
            }
            .boxed()
        })
        .start()
        .await
        .unwrap();
    broker.producer("shop").publish(&Message::new("billing", "n", &1).unwrap()).await.unwrap();
    until(
        &client,
        "it is completed",
        "select exists (select from integration.data_staging where status = 'completed' and attempt > 1)",
    )
    .await;
    consumer.shutdown().await.unwrap();
    assert_eq!(count(&client, "select count(*) from ledger").await, 1);
}
