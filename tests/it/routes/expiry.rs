//! Messages that are wanted for a while only.

use std::time::Duration;

use super::{said, subscribed};
use crate::support::{Database, count, message, plain_insert, stop_the_clock};

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
    let refused = client.query_one(expire, &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "MQ002");
    client.batch_execute("begin").await.unwrap();
    client.batch_execute(publish).await.unwrap();
    assert_eq!(count(&client, expire).await, 1);
    client.query_one(expire, &[]).await.unwrap_err();
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.expiring").await, 0);
    let inserted = "with made as (insert into integration.data_staging (source_app, target_app, record_type, data) \
        values ('shop', 'billing', 'order.placed', '1') returning id) \
        select integration.expire_after(array_agg(id), array[interval '0'])::bigint from made";
    assert_eq!(count(&client, inserted).await, 1);
    assert_eq!(count(&client, "select integration.expire()::bigint").await, 1);
    assert_eq!(said(&client, STATUSES).await, "pending cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_its_time_on_nobody_claims_or_holds_it_whether_it_is_cancelled_yet_or_not() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let producer = db.broker().await.producer("shop");
    for n in 0..4 {
        let n = message("billing", n).expires_after(if n == 3 { MINUTE * 2 } else { MINUTE });
        producer.publish(&n.ordering_key("k")).await.unwrap();
        producer.publish(&message("mailer", 1).expires_after(MINUTE)).await.unwrap();
    }
    client.batch_execute("select integration.register('c', 'h', 1, 'a', 'v', '{}', 3600000)").await.unwrap();
    let takes = [
        "select count(*) from integration.claim('mailer', 'c', 9)",
        "select count(id) from integration.hold('mailer', 9)",
        "select count(*) from integration.claim_in_parts('mailer', 'c', 9)",
        "select count(*) from integration.claim('billing', 'c', 9)",
    ];
    let mut taken = Vec::new();
    for second in [59, 60] {
        stop_the_clock(&client, second).await;
        for take in takes {
            client.batch_execute("begin").await.unwrap();
            taken.push(count(&client, take).await);
            client.batch_execute("rollback").await.unwrap();
        }
    }
    assert_eq!(taken, [4, 4, 4, 1, 0, 0, 0, 0]);
    assert_eq!(said(&client, "select code from integration.explain(2)").await, "expiring no_consumer");
    // A client that claims with a lease needs nobody who cancels it, and its key is free.
    let claimed = "select data::text from integration.claim('billing', 'me', 9, p_lease => '1 h')";
    assert_eq!(said(&client, claimed).await, "3");
    assert_eq!(
        said(&client, STATUSES).await,
        "cancelled cancelled cancelled cancelled cancelled cancelled processing cancelled"
    );
    // What was handled then and is put back is not claimed either, although nobody has looked.
    stop_the_clock(&client, 120).await;
    client.batch_execute("select integration.expire(); select integration.release(7, 1, 'me')").await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.claim('billing', 'c', 9)").await, 0);
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_expire_with_what_was_published_and_a_target_may_say_it_for_all_that_say_nothing() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    subscribed(&db, &["billing", "mailer"]).await;
    let producer = db.broker().await.producer("shop");
    producer.publish(&message("orders", 1).expires_after(MINUTE)).await.unwrap();
    producer.publish_many(&[message("orders", 2), message("orders", 3).expires_after(MINUTE * 2)]).await.unwrap();
    let ends = "select concat_ws(',', d.target_app, d.data, extract(epoch from e.expires_at - '2026-03-01 12:00:00Z')::integer) \
        from integration.data_staging d left join integration.expiring e using (id, created_at) \
        where d.status in ('pending', 'scheduled') order by d.id";
    assert_eq!(said(&client, ends).await, "billing,1,60 mailer,1,60 billing,2 mailer,2 billing,3,120 mailer,3,120");
    client.batch_execute("truncate integration.data_staging, integration.expiring").await.unwrap();
    client.batch_execute("select integration.set_target('mailer', '{\"expire_after\": \"10 min\"}')").await.unwrap();
    producer.publish(&message("mailer", 1)).await.unwrap();
    producer.publish(&message("mailer", 2).delay(MINUTE)).await.unwrap();
    producer.publish(&message("mailer", 3).expires_after(MINUTE)).await.unwrap();
    producer
        .publish_many(&(4..100).map(|n| message(if n == 4 { "mailer" } else { "other" }, n)).collect::<Vec<_>>())
        .await
        .unwrap();
    producer.publish(&message("orders", 5)).await.unwrap();
    producer.publish(&message("orders", 6).expires_after(MINUTE)).await.unwrap();
    plain_insert(&client, "mailer", "7").await;
    let mailer = ends.replace("where", "where d.target_app = 'mailer' and");
    assert_eq!(
        said(&client, &mailer).await,
        "mailer,1,600 mailer,2,660 mailer,3,60 mailer,4,600 mailer,5,600 mailer,6,60 mailer,7,600"
    );
    // It is for what is published from then on, and ends with it.
    client.batch_execute("select integration.set_target('mailer', '{\"expire_after\": null}')").await.unwrap();
    producer.publish(&message("mailer", 8)).await.unwrap();
    stop_the_clock(&client, 600).await;
    client.batch_execute("select integration.rescue_and_promote()").await.unwrap();
    assert_eq!(said(&client, &mailer).await, "mailer,2,660 mailer,8");
}
