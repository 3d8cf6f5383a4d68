//! Requests that are handled several at a time: each is told its own reply, in the transaction that completes it.

use std::time::Duration;

use async_trait::async_trait;
use doorbell::{Batch, BatchHandler, BatchOutcome, BatchResult, ConsumerConfig, Delivery, Outcome};
use tokio_postgres::Client;

use super::said;
use crate::support::{Database, bells_only, count, until};

const HOUR: Duration = Duration::from_secs(3600);

/// Asks with these numbers, under the ordering keys of the second column, and for them all in one transaction.
async fn ask(client: &Client, asked: &str) {
    let ask = format!(
        "select integration.request('shop', 'billing', 'n', to_jsonb(n), '1 h', p_reply_to => 'me.' || n, p_ordering_key => k) \
            from (values {asked}) a (n, k)"
    );
    client.batch_execute(&ask).await.unwrap();
}

/// What whoever asked is told of each, by ids.
async fn told(client: &Client) -> String {
    let told = "select concat_ws(' ', a.id, a.state, a.reply, left(a.reason, 21)) || ';' from integration.answers( \
        array(select generate_series(1, 9)), array(select 'me.' || n from generate_series(1, 9) n)) a \
        where a.state <> 'gone' order by a.id";
    said(client, told).await
}

fn one_at_a_time() -> ConsumerConfig {
    ConsumerConfig { concurrency: 1, ..bells_only() }
}

/// Replies with the double, but not to 2, and in an hour to 3; 4 is done without a reply.
fn doubled(outcome: &mut BatchOutcome, number: i64, delivery: &Delivery) -> doorbell::Result<()> {
    match number {
        2 => outcome.set(delivery.id, Outcome::reject("two")),
        3 => outcome.set(delivery.id, Outcome::snooze(HOUR)),
        4 => {}
        _ => outcome.reply(delivery.id, &(number * 2))?,
    }
    Ok(())
}

struct Raw;

#[async_trait]
impl BatchHandler for Raw {
    async fn handle(&self, deliveries: Vec<Delivery>) -> BatchResult {
        let mut outcome = BatchOutcome::done();
        for delivery in &deliveries {
            doubled(&mut outcome, delivery.json()?, delivery)?;
        }
        Ok(outcome)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_and_raw_handlers_of_batches_reply_to_each_request_in_one_transaction() {
    for how in ["typed", "raw", "fallback"] {
        let db = Database::new().await;
        let client = db.client().await;
        // The sixth comes after the third, and the eighth is no request.
        ask(&client, "(1, 'a'), (2, null), (3, 'b'), (4, 'a'), (5, 'a'), (6, 'b'), (7, null)").await;
        client.batch_execute("select integration.publish('shop', 'billing', 'n', '8')").await.unwrap();
        let consumer = db.broker().await.consumer("billing").config(one_at_a_time());
        let consumer = match how {
            "typed" => consumer.on_batch("n", Batch::of(9), |items: Vec<(i64, Delivery)>| async move {
                let mut outcome = BatchOutcome::done();
                items.iter().try_for_each(|(number, delivery)| doubled(&mut outcome, *number, delivery))?;
                Ok(outcome)
            }),
            "raw" => consumer.batch_handler("n", Batch::of(9), Raw),
            _ => consumer.fallback_batch_handler(Batch::of(9), Raw),
        };
        let consumer = consumer.start().await.unwrap();
        until(
            &client,
            "all but those of the second key are done",
            "select count(*) = 6 from integration.data_staging where status in ('completed', 'failed')",
        )
        .await;
        consumer.shutdown().await.unwrap();
        assert_eq!(told(&client).await, "1 replied 2; 2 failed two; 4 completed; 5 replied 10; 7 replied 14;", "{how}");
        let once = "select count(*) from integration.data_staging where attempt > 1 and data <> '6'";
        assert_eq!(count(&client, once).await, 0, "{how}");
        let at_once = "select count(distinct xmin::text) from integration.replies";
        assert_eq!(count(&client, at_once).await, 1, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_of_a_batch_and_its_replies_commit_together() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("create table effects (n bigint)").await.unwrap();
    ask(&client, "(1, null), (2, null), (3, null)").await;
    client.batch_execute("select integration.publish('shop', 'billing', 'n', '4')").await.unwrap();
    let consumer = db.broker().await.consumer("billing").config(one_at_a_time());
    let consumer = consumer.on_batch_tx("n", Batch::of(9), |items: Vec<(i64, Delivery)>, tx| {
        Box::pin(async move {
            let numbers: Vec<i64> = items.iter().map(|(number, _)| *number).collect();
            tx.execute("insert into effects select unnest($1::bigint[])", &[&numbers]).await?;
            let mut outcome = BatchOutcome::done();
            for (number, delivery) in &items {
                outcome.reply(delivery.id, &(number * 2))?;
                if *number == 2 {
                    outcome.set(delivery.id, Outcome::reject("two"));
                }
            }
            Ok(outcome)
        })
    });
    let consumer = consumer.start().await.unwrap();
    until(&client, "all are done", "select bool_and(status in ('completed', 'failed')) from integration.data_staging")
        .await;
    consumer.shutdown().await.unwrap();
    assert_eq!(told(&client).await, "1 replied 2; 2 failed two; 3 replied 6;");
    let of_one = "select string_agg(e.n::text, ' ' order by e.n) || ' ' || count(distinct r.xmin::text) \
        from effects e join integration.replies r on r.xmin = e.xmin and r.id = e.n";
    assert_eq!(said(&client, of_one).await, "1 3 1");
    assert_eq!(count(&client, "select count(*) from effects").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_replied_to_keeps_no_other_from_its_reply() {
    let db = Database::new().await;
    let client = db.client().await;
    ask(&client, "(1, null), (2, null), (3, null), (4, null)").await;
    let config = doorbell::BrokerConfig { payload_bytes_max: 100, ..doorbell::BrokerConfig::default() };
    let editor = std::sync::Arc::new(db.client().await);
    let consumer = db.broker_with(config).await.consumer("billing").config(one_at_a_time());
    let consumer = consumer.on_batch("n", Batch::of(9), move |items: Vec<(i64, Delivery)>| {
        let editor = editor.clone();
        async move {
            let mut outcome = BatchOutcome::done();
            for (number, delivery) in &items {
                outcome.reply(delivery.id, &number)?;
                match number {
                    // Somebody has settled it by hand.
                    2 => {
                        let complete = "update integration.data_staging set status = 'completed' where id = 2";
                        editor.execute(complete, &[]).await?;
                    }
                    3 => outcome.reply(delivery.id, &"x".repeat(200))?,
                    _ => {}
                }
            }
            Ok(outcome)
        }
    });
    let consumer = consumer.start().await.unwrap();
    until(&client, "all are done", "select bool_and(status in ('completed', 'failed')) from integration.data_staging")
        .await;
    consumer.shutdown().await.unwrap();
    assert_eq!(told(&client).await, "1 replied 1; 2 completed; 3 failed the reply: 202 bytes;; 4 replied 4;");
}
