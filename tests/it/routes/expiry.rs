//! Messages that are wanted for a while only.

use std::time::Duration;

use super::said;
use crate::support::{Database, count, message, stop_the_clock};

const MINUTE: Duration = Duration::from_secs(60);
const STATUSES: &str = "select status from integration.data_staging order by id";

#[tokio::test(flavor = "multi_thread")]
async fn what_still_waits_when_its_time_is_over_is_cancelled_and_what_is_handled_is_not() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let producer = db.broker().await.producer("shop");
    let taken = producer.publish(&message("billing", 1).priority(9).expires_after(MINUTE)).await.unwrap();
    let waits = producer.publish(&message("billing", 2).expires_after(MINUTE)).await.unwrap();
    producer.publish(&message("billing", 3).delay(MINUTE * 60).expires_after(MINUTE)).await.unwrap();
    producer.publish(&message("billing", 4)).await.unwrap();
    producer.publish(&message("billing", 5).expires_after(MINUTE * 2)).await.unwrap();
    let claimed = "select id::text from integration.claim('billing', 'me', p_lease => '1 h')";
    assert_eq!(said(&client, claimed).await, taken.to_string());
    stop_the_clock(&client, 59).await;
    client.batch_execute("select integration.rescue_and_promote()").await.unwrap();
    assert_eq!(said(&client, STATUSES).await, "processing pending scheduled pending pending");
    stop_the_clock(&client, 60).await;
    let due = "select count from integration.maintenance_due() where task = 'expire'";
    assert_eq!(count(&client, due).await, 2);
    client.batch_execute("select integration.rescue_and_promote()").await.unwrap();
    assert_eq!(said(&client, STATUSES).await, "processing cancelled cancelled pending pending");
    // What is handled is its consumer's.
    client.execute("select integration.complete($1, 1, 'me')", &[&taken]).await.unwrap();
    stop_the_clock(&client, 66).await;
    client.batch_execute("select integration.rescue_and_promote()").await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.expiring").await, 1);
    assert_eq!(
        count(&client, "select sum(messages)::bigint from integration.current_totals where action = 'expired'").await,
        2
    );
    let told = format!("select sentence from integration.explain({waits})");
    let told = said(&client, &told).await;
    assert!(told.starts_with("it expired") && told.ends_with("nobody took it in time"), "{told}");
    let audited = format!(
        "select action || ': ' || (details ->> 'reason') from integration.audit_log where staging_id = {waits} and action <> 'published'"
    );
    assert_eq!(said(&client, &audited).await, "expired: expired: nobody took it in time");
    // Put back, it is wanted.
    client.execute("select integration.redrive($1)", &[&waits]).await.unwrap();
    client.batch_execute("select integration.rescue_and_promote()").await.unwrap();
    assert_eq!(said(&client, STATUSES).await, "completed pending cancelled pending pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_published_with_and_without_an_end_and_duplicates_keep_the_first_ones() {
    let db = Database::new().await;
    let client = db.client().await;
    let producer = db.broker().await.producer("shop");
    // As many as go by COPY otherwise.
    let messages: Vec<_> = (0..200)
        .map(|n| if n % 2 == 0 { message("billing", n).expires_after(MINUTE) } else { message("billing", n) })
        .collect();
    producer.publish_many(&messages).await.unwrap();
    let which = "select count(*) from integration.expiring e join integration.data_staging d using (id, created_at) \
        where d.data::text::integer % 2 = 0";
    assert_eq!(count(&client, which).await, 100);
    let twice = [
        message("billing", 0).dedup_key("k").expires_after(MINUTE),
        message("billing", 1).dedup_key("k").expires_after(MINUTE * 9),
    ];
    let ids = producer.publish_many(&twice).await.unwrap();
    assert_eq!(ids[0], ids[1]);
    producer.publish(&twice[1]).await.unwrap();
    producer.publish_many(&twice[1..]).await.unwrap();
    let first = format!(
        "select round(extract(epoch from expires_at - created_at))::bigint / 60 from integration.expiring where id = {}",
        ids[0]
    );
    assert_eq!(count(&client, &first).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_transaction_that_publishes_a_message_can_say_when_it_expires() {
    let db = Database::new().await;
    let client = db.client().await;
    let publish = "select integration.publish('shop', 'billing', 'order.placed', '1')";
    let expire =
        "select integration.expire_after(array[max(id)], array[interval '0'])::bigint from integration.data_staging";
    client.batch_execute(publish).await.unwrap();
    assert_eq!(count(&client, expire).await, 0);
    client.batch_execute("begin").await.unwrap();
    client.batch_execute(publish).await.unwrap();
    assert_eq!(count(&client, expire).await, 1);
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.expiring").await, 0);
    let inserted = "with made as (insert into integration.data_staging (source_app, target_app, record_type, data) \
        values ('shop', 'billing', 'order.placed', '1') returning id) \
        select integration.expire_after(array_agg(id), array[interval '0'])::bigint from made";
    assert_eq!(count(&client, inserted).await, 1);
    assert_eq!(count(&client, "select integration.expire()::bigint").await, 1);
    assert_eq!(said(&client, STATUSES).await, "pending cancelled");
}
