//! What people have put on the audit log refuses what is to be written there.

use doorbell::{
    ConsumerConfig, Outcome,
    doctor::{Level, Options},
};

use super::with_status;
use crate::{
    operate::old_messages,
    support::{Database, bells_only, count, message, plain_insert, seen, until_count},
};

const REFUSE: &str = "alter table integration.audit_log add constraint no_more check (false) not valid";
const UNAUDITED: &str =
    "select coalesce(sum(messages), 0)::bigint from integration.current_totals where action = 'unaudited'";

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_handled_once_although_their_history_cannot_be_written_and_the_doctor_says_so() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(REFUSE).await.unwrap();
    let (tell, mut told) = seen();
    let broker = db.broker().await;
    let config = ConsumerConfig { hold: None, ..bells_only() };
    let consumer = broker.consumer("billing").config(config).on("n", move |n: i64, _| {
        let _ = tell.send(n);
        async move { Ok(if n == 7 { Outcome::reject("no") } else { Outcome::Done }) }
    });
    let consumer = consumer.start().await.unwrap();
    let producer = broker.producer("shop");
    for n in 0..10 {
        producer.publish(&message("billing", n)).await.unwrap();
    }
    until_count(&client, "completed", 9).await;
    until_count(&client, "failed", 1).await;
    assert_eq!(told.rest().count(), 10);
    consumer.shutdown().await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.set_aside").await, 0);
    assert_eq!(count(&client, UNAUDITED).await, 10);
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    let finding = report.findings.iter().find(|finding| finding.check == "audit").unwrap();
    assert_eq!(finding.level, Level::Problem, "{finding:?}");
    assert!(finding.what.contains("10 changes of messages of billing"), "{finding:?}");
    client.batch_execute("alter table integration.audit_log drop constraint no_more").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upkeep_goes_on_without_history_and_what_people_do_does_not() {
    let db = Database::new().await;
    let client = db.client().await;
    old_messages(&client, "archived", 3).await;
    let lost = plain_insert(&client, "billing", "1").await;
    let prepare = "select integration.claim('billing', 'dead', 1, p_lease => '-1 s'); \
        insert into integration.data_staging (source_app, target_app, record_type, data, status, updated_at) \
            select 'shop', 'purged', 'n', '1', 'failed', now() - interval '1 year' from generate_series(1, 4); \
        select integration.publish('shop', 'mailer', 'n', '1', p_delay => '1 us'); \
        select integration.publish('shop', 'kept', 'n', '1')";
    client.batch_execute(prepare).await.unwrap();
    client.batch_execute("select integration.set_audit_level('all')").await.unwrap();
    client.batch_execute(REFUSE).await.unwrap();
    // A publisher hears nothing of it.
    client.batch_execute("select integration.publish('shop', 'mailer', 'n', '2')").await.unwrap();
    let done = "select rescued, promoted, archived, purged from integration.maintain()";
    let done = client.query_one(done, &[]).await.unwrap();
    let of = |column: &str| done.try_get::<_, i32>(column).map_or_else(|_| done.get::<_, i64>(column), i64::from);
    assert_eq!((of("rescued"), of("promoted"), of("archived"), of("purged")), (1, 1, 3, 4));
    assert_eq!(
        (with_status(&client, "billing", "pending").await, with_status(&client, "mailer", "pending").await),
        (1, 2)
    );
    assert_eq!(count(&client, UNAUDITED).await, 1 + 1 + 1 + 3 + 4);

    // Nobody acts unseen: whatever the session says of history.
    client.batch_execute("set integration.history = 'refused'").await.unwrap();
    let cancel = format!("select integration.cancel(array[{lost}])");
    let cancel = client.batch_execute(&cancel).await.unwrap_err();
    assert!(cancel.as_db_error().unwrap().message().contains("no_more"), "{cancel:?}");
    for act in [
        "select integration.pause('billing')",
        "update integration.data_staging set status = 'cancelled' where target_app = 'billing'",
        "delete from integration.data_staging where target_app = 'billing'",
        "update integration.data_staging set priority = 7 where target_app = 'billing'",
        "update integration.settings set max_retries = 7",
    ] {
        let refused = client.batch_execute(act).await.unwrap_err();
        assert_eq!(refused.as_db_error().unwrap().constraint(), Some("no_more"), "{act}: {refused:?}");
    }
    client
        .batch_execute("alter table integration.audit_log drop constraint no_more; reset integration.history")
        .await
        .unwrap();
    client.batch_execute("select integration.pause('billing')").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_without_its_history_and_nobody_opens_one_so() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(REFUSE).await.unwrap();
    client.batch_execute("select integration.report_runs('billing', 0, 1, true, 'cards are down')").await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.breakers where state = 'open'").await, 1);
    let refused = client.batch_execute("select integration.close_breaker('billing')").await.unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().constraint(), Some("no_more"), "{refused:?}");
    assert_eq!(count(&client, "select count(*) from integration.breakers where state = 'open'").await, 1);
}
