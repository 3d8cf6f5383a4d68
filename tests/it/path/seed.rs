//! The statements of the integration guide, as it has them, beside our consumers.

use doorbell::Outcome;
use tokio_postgres::Client;

use crate::support::{Database, bells_only, count, echo, message, row, seen, until_status};

pub(crate) const PUBLISH: &str = "INSERT INTO integration.data_staging
    (source_app, target_app, record_type, data, priority)
    VALUES ($1, $2, $3, $4::text::jsonb, $5)
    RETURNING id";
pub(crate) const CONSUME: &str = "UPDATE integration.data_staging
    SET status = 'processing',
        updated_at = NOW()
    WHERE id IN (
        SELECT id
        FROM integration.data_staging
        WHERE target_app = $1
        AND status = 'pending'
        ORDER BY priority DESC, created_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    )
    RETURNING id, source_app, record_type, data";
pub(crate) const MARK_COMPLETED: &str = "UPDATE integration.data_staging
    SET status = 'completed',
        processed_at = NOW(),
        updated_at = NOW()
    WHERE id = $1";
pub(crate) const MARK_FAILED: &str = "UPDATE integration.data_staging
    SET status = CASE
        WHEN retry_count >= 3 THEN 'failed'
        ELSE 'pending'
    END,
    retry_count = retry_count + 1,
    error_message = $1,
    updated_at = NOW()
    WHERE id = $2";
const CLEAN_UP: &str = "INSERT INTO integration.data_staging_archive
    SELECT * FROM integration.data_staging
    WHERE status = 'completed'
    AND processed_at < NOW() - INTERVAL '7 days';

    DELETE FROM integration.data_staging
    WHERE status = 'completed'
    AND processed_at < NOW() - INTERVAL '7 days';

    DELETE FROM integration.data_staging
    WHERE status = 'failed'
    AND updated_at < NOW() - INTERVAL '30 days'";
const PENDING: &str = "SELECT target_app, COUNT(*) as pending_count
    FROM integration.data_staging
    WHERE status = 'pending'
    GROUP BY target_app";
const STUCK: &str = "SELECT id, target_app, created_at,
           NOW() - created_at as age
    FROM integration.data_staging
    WHERE status = 'processing'
    AND updated_at < NOW() - INTERVAL '1 hour'";
const ERROR_RATES: &str = "SELECT source_app, target_app,
           COUNT(*) as total,
           SUM(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) as failed,
           ROUND(100.0 * SUM(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) / COUNT(*), 2) as error_rate
    FROM integration.data_staging
    WHERE created_at > NOW() - INTERVAL '24 hours'
    GROUP BY source_app, target_app";

async fn publish(client: &Client, target: &str) -> i64 {
    client.query_one(PUBLISH, &[&"erp", &target, &"n", &"{\"a\": 1}", &5]).await.unwrap().get(0)
}

async fn consume(client: &Client, target: &str) -> Vec<i64> {
    client.query(CONSUME, &[&target, &100_i64]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn mark_failed(client: &Client, id: i64) -> Result<u64, tokio_postgres::Error> {
    client.execute(MARK_FAILED, &[&"no luck", &id]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guide_publishes_wakes_our_consumer() {
    let db = Database::new().await;
    let client = db.client().await;
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    for _ in 0..3 {
        let id = publish(&client, "billing").await;
        let delivery = told.next().await;
        assert_eq!((delivery.id, delivery.priority, delivery.payload()), (id, 5, "{\"a\": 1}"));
        until_status(&client, id, "completed").await;
    }
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_consumer_takes_our_messages_through_its_four_statuses() {
    let db = Database::new().await;
    let client = db.client().await;
    let id = db.broker().await.producer("shop").publish(&message("billing", 1)).await.unwrap();
    for retry in 1..=4 {
        assert_eq!(consume(&client, "billing").await, [id]);
        assert!(consume(&client, "billing").await.is_empty());
        mark_failed(&client, id).await.unwrap();
        let failed = row(&client, id).await;
        let expected = if retry == 4 { "failed" } else { "pending" };
        assert_eq!((&*failed.status, failed.retry_count, failed.reason()), (expected, retry, "no luck"));
    }
    let id = db.broker().await.producer("shop").publish(&message("billing", 2)).await.unwrap();
    assert_eq!(consume(&client, "billing").await, [id]);
    client.execute(MARK_COMPLETED, &[&id]).await.unwrap();
    assert_eq!(row(&client, id).await.status, "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_consumers_and_ours_never_take_the_same_message() {
    let db = Database::new().await;
    let client = db.client().await;
    let (one, mut told_one) = echo(&db.broker().await, "billing").await;
    let (two, mut told_two) = echo(&db.broker().await, "billing").await;
    let producing = async {
        let producer = db.broker().await.producer("shop");
        for n in 0..200 {
            producer.publish(&message("billing", n)).await.unwrap();
        }
    };
    let (other, publisher) = (db.client().await, db.client().await);
    let consuming = async {
        let mut taken = Vec::new();
        for _ in 0..200 {
            publish(&publisher, "billing").await;
            for id in consume(&other, "billing").await {
                other.execute(MARK_COMPLETED, &[&id]).await.unwrap();
                taken.push(id);
            }
        }
        taken
    };
    let ((), mut taken) = tokio::join!(producing, consuming);
    crate::support::until_count(&client, "completed", 400).await;
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
    taken.extend(told_one.rest().chain(told_two.rest()).map(|delivery| delivery.id));
    assert_eq!(taken.len(), 400, "each once");
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_reported_after_completion_is_refused() {
    let db = Database::new().await;
    let client = db.client().await;
    let (consumer, _told) = echo(&db.broker().await, "billing").await;
    let id = publish(&client, "billing").await;
    until_status(&client, id, "completed").await;
    let error = mark_failed(&client, id).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "MQ003");
    assert!(error.as_db_error().unwrap().hint().unwrap().contains("redrive"), "it says what to do");
    // Reporting the same success twice harms nobody.
    client.execute(MARK_COMPLETED, &[&id]).await.unwrap();
    assert_eq!(row(&client, id).await.status, "completed");
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_report_about_a_running_message_makes_our_settle_too_late_and_breaks_nothing() {
    let db = Database::new().await;
    let client = db.client().await;
    let (tell, mut told) = seen();
    let (go, going) = tokio::sync::watch::channel(false);
    let consumer = db.broker().await.consumer("billing").config(bells_only()).fallback(move |delivery| {
        tell.send(delivery.id).unwrap();
        let mut going = going.clone();
        async move {
            going.wait_for(|&go| go).await?;
            Ok(Outcome::reject("too late to be said"))
        }
    });
    let consumer = consumer.start().await.unwrap();
    let id = publish(&client, "billing").await;
    assert_eq!(told.next().await, id);
    assert!(row(&client, id).await.owner.is_some());
    client.execute(MARK_COMPLETED, &[&id]).await.unwrap();
    go.send_replace(true);
    let next = publish(&client, "billing").await;
    until_status(&client, next, "failed").await;
    consumer.shutdown().await.unwrap();
    let completed = row(&client, id).await;
    assert_eq!((&*completed.status, completed.error, completed.owner), ("completed", None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_clean_up_and_monitoring_run_as_written() {
    let db = Database::new().await;
    let client = db.client().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(publish(&client, "billing").await);
    }
    client.execute(MARK_COMPLETED, &[&ids[0]]).await.unwrap();
    client.execute(MARK_COMPLETED, &[&ids[1]]).await.unwrap();
    let age = "update integration.data_staging set processed_at = now() - interval '8 days' where id = $1";
    client.execute(age, &[&ids[0]]).await.unwrap();
    let fail =
        "update integration.data_staging set status = 'failed', updated_at = now() - interval '31 days' where id = $1";
    client.execute(fail, &[&ids[2]]).await.unwrap();
    let stuck = "update integration.data_staging set status = 'processing', updated_at = now() - interval '2 hours' where id = $1";
    client.execute(stuck, &[&ids[3]]).await.unwrap();

    let rates = client.query(ERROR_RATES, &[]).await.unwrap();
    let rate: (&str, i64, i64) = (rates[0].get("source_app"), rates[0].get("total"), rates[0].get("failed"));
    assert_eq!((rates.len(), rate), (1, ("erp", 5, 1)));
    client.batch_execute(CLEAN_UP).await.unwrap();
    assert_eq!(count(&client, "select min(id) from integration.data_staging_archive").await, ids[0]);
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 3);
    let stuck = client.query(STUCK, &[]).await.unwrap();
    assert_eq!((stuck.len(), stuck[0].get::<_, i64>("id")), (1, ids[3]));
    let pending = client.query(PENDING, &[]).await.unwrap();
    assert_eq!((pending.len(), pending[0].get::<_, i64>("pending_count")), (1, 1));
}
