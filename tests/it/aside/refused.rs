//! The database refuses to change one message.

use std::{collections::BTreeSet, sync::Arc};

use doorbell::{
    BrokerConfig, ConsumerConfig, Outcome,
    doctor::{Level, Options},
    observe::Metrics,
};

use super::{LEAVE_OUT, LEFT_IN, MEND, REFUSE, as_refused, aside, one_bad_among, with_status};
use crate::support::{Database, bells_only, count, echo, plain_insert, seen, soon, until, until_count};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_claimed_delays_itself_alone_and_is_named_until_it_can() {
    let db = Database::new().await;
    let client = db.client().await;
    let bad = one_bad_among(&client, "billing", 20).await;
    client.batch_execute(REFUSE).await.unwrap();
    let metrics = Arc::new(Metrics::new());
    let broker = db.broker_with(BrokerConfig { observer: Some(metrics.clone()), ..Default::default() }).await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    let ids: BTreeSet<i64> = told.take(20).await.iter().map(|delivery| delivery.id).collect();
    assert_eq!((ids.len(), ids.contains(&bad)), (20, false));
    until_count(&client, "completed", 20).await;
    assert_eq!(aside(&client, bad).await, as_refused("claim"));

    let operator = broker.operator();
    let why = operator.explain(bad).await.unwrap();
    assert_eq!(why[0].code, "set_aside");
    assert!(why[0].sentence.contains("has_tenant"), "{}", why[0].sentence);
    let report = operator.doctor(&Options::default()).await.unwrap();
    let finding = report.findings.iter().find(|finding| finding.check == "set_aside").unwrap();
    assert_eq!(finding.level, Level::Warning, "{finding:?}");
    let scraped = metrics.scrape(&broker).await;
    assert!(scraped.contains("doorbell_set_aside{target=\"billing\"} 1"), "{scraped}");
    assert!(operator.is_drained("billing", None).await.unwrap());

    // What is published meanwhile is handled.
    client.batch_execute("alter table integration.data_staging drop constraint has_tenant").await.unwrap();
    let late = plain_insert(&client, "billing", "{}").await;
    assert_eq!(told.next().await.id, late);
    client.batch_execute("select integration.look_again()").await.unwrap();
    assert_eq!(told.next().await.id, bad);
    until_count(&client, "completed", 22).await;
    assert_ne!(operator.explain(bad).await.unwrap()[0].code, "set_aside");
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_nothing_but_refused_messages_does_not_hide_those_behind_it() {
    let db = Database::new().await;
    let client = db.client().await;
    for _ in 0..30 {
        one_bad_among(&client, "billing", 0).await;
    }
    one_bad_among(&client, "billing", 5).await;
    client.batch_execute(REFUSE).await.unwrap();
    let (tell, mut told) = seen();
    let config = ConsumerConfig { concurrency: 2, prefetch: Some(0), ..bells_only() };
    let broker = db.broker().await;
    let consumer = broker.consumer("billing").config(config).fallback(move |delivery| {
        let _ = tell.send(delivery.id);
        async { Ok(Outcome::Done) }
    });
    let consumer = consumer.start().await.unwrap();
    assert_eq!(told.take(5).await.len(), 5);
    until_count(&client, "completed", 5).await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_trigger_that_fails_for_one_message_keeps_no_consumer_that_holds_from_the_others() {
    let db = Database::new().await;
    let client = db.client().await;
    let bad = one_bad_among(&client, "billing", 10).await;
    let trigger = "create function refuse() returns trigger language plpgsql as $$ begin \
            if not new.data ? 'tenant' then raise 'no tenant'; end if; return new; end $$; \
        create trigger refuse before update on integration.data_staging for each row execute function refuse()";
    client.batch_execute(trigger).await.unwrap();
    let (tell, mut told) = seen();
    let broker = db.broker().await;
    let config = ConsumerConfig { hold: Some(std::time::Duration::from_secs(1)), ..bells_only() };
    let consumer = broker.consumer("billing").config(config).on_tx("n", move |_: serde_json::Value, delivery, _tx| {
        let _ = tell.send(delivery.id);
        Box::pin(async { Ok(Outcome::Done) })
    });
    let consumer = consumer.start().await.unwrap();
    until_count(&client, "completed", 10).await;
    assert_eq!(aside(&client, bad).await, ("claim".to_owned(), "P0001".to_owned()));
    assert!(told.rest().count() >= 10);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_trigger_that_leaves_messages_out_without_a_word_hides_nothing_behind_them() {
    let db = Database::new().await;
    let client = db.client().await;
    for _ in 0..30 {
        one_bad_among(&client, "billing", 0).await;
    }
    let bad = one_bad_among(&client, "billing", 5).await;
    client.batch_execute(LEAVE_OUT).await.unwrap();
    let (tell, mut told) = seen();
    let config = ConsumerConfig { concurrency: 1, prefetch: Some(0), hold: None, ..bells_only() };
    let broker = db.broker().await;
    let consumer = broker.consumer("billing").config(config).fallback(move |delivery| {
        let _ = tell.send(delivery.id);
        async { Ok(Outcome::Done) }
    });
    let consumer = consumer.start().await.unwrap();
    assert_eq!(told.take(5).await, (bad + 1..=bad + 5).collect::<Vec<_>>());
    until_count(&client, "completed", 5).await;
    assert_eq!(aside(&client, bad).await, ("claim".to_owned(), "27000".to_owned()));
    let why = broker.operator().explain(bad).await.unwrap();
    assert!(why[0].code == "set_aside" && why[0].sentence.contains("a trigger on data_staging"), "{why:?}");
    client.batch_execute(LEFT_IN).await.unwrap();
    until_count(&client, "completed", 36).await;
    consumer.shutdown().await.unwrap();
    // In plain SQL, and what else takes several at once.
    let due = one_bad_among(&client, "mailer", 3).await;
    let lost = one_bad_among(&client, "orders", 3).await;
    let plain = one_bad_among(&client, "plain", 3).await;
    let sql = "update integration.data_staging set status = 'scheduled', available_at = integration.clock() \
            where target_app = 'mailer'; \
        update integration.data_staging set status = 'processing', owner = 'dead-1', attempt = 1 where target_app = 'orders'";
    client.batch_execute(sql).await.unwrap();
    client.batch_execute(LEAVE_OUT).await.unwrap();
    let claim = "select count(*) from integration.claim('plain', 'me', 1, p_lease => '1 h')";
    assert_eq!(count(&client, claim).await, 1);
    let done = client.query_one("select rescued, promoted from integration.rescue_and_promote()", &[]).await.unwrap();
    assert_eq!((done.get::<_, i32>(0), done.get::<_, i32>(1)), (3, 3));
    for (id, verb) in [(due, "promote"), (lost, "rescue"), (plain, "claim")] {
        assert_eq!(aside(&client, id).await, (verb.to_owned(), "27000".to_owned()));
    }
    let refused = broker.operator().cancel(&[due], None).await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("27000"), "{refused}");
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_promoted_or_rescued_delays_itself_alone() {
    let db = Database::new().await;
    let client = db.client().await;
    let due = one_bad_among(&client, "mailer", 20).await;
    let lost = one_bad_among(&client, "billing", 20).await;
    let sql = "update integration.data_staging set status = 'scheduled', available_at = integration.clock() \
            where target_app = 'mailer'; \
        update integration.data_staging set status = 'processing', owner = 'dead-1', attempt = 1 \
            where target_app = 'billing'";
    client.batch_execute(sql).await.unwrap();
    client.batch_execute(REFUSE).await.unwrap();
    let row = client.query_one("select rescued, promoted from integration.rescue_and_promote()", &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (20, 20));
    assert_eq!(
        (with_status(&client, "mailer", "pending").await, with_status(&client, "billing", "pending").await),
        (20, 20)
    );
    assert_eq!(aside(&client, due).await, as_refused("promote"));
    assert_eq!(aside(&client, lost).await, as_refused("rescue"));
    // Left out until their next look, also by those who ask what is due.
    let due_now = "select count(*) from integration.maintenance_due() where task in ('promote', 'rescue')";
    assert_eq!(count(&client, due_now).await, 0);
    assert_eq!(count(&client, "select count(*) from integration.next_due('{mailer}')").await, 0);
    client.batch_execute(MEND).await.unwrap();
    client.batch_execute("select integration.rescue_and_promote()").await.unwrap();
    assert_eq!(
        (with_status(&client, "mailer", "pending").await, with_status(&client, "billing", "pending").await),
        (21, 21)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_redriven_or_cancelled_is_named_and_the_others_are() {
    let db = Database::new().await;
    let client = db.client().await;
    let bad = one_bad_among(&client, "billing", 20).await;
    client.batch_execute("update integration.data_staging set status = 'failed'").await.unwrap();
    client.batch_execute(REFUSE).await.unwrap();
    let operator = db.broker().await.operator();
    let ids: Vec<i64> = (bad..=bad + 20).collect();
    assert_eq!(operator.redrive(&ids).await.unwrap().len(), 20);
    assert_eq!(aside(&client, bad).await, as_refused("redrive"));
    assert_eq!(operator.explain(bad).await.unwrap()[0].code, "set_aside");
    let error = operator.redrive(&[bad]).await.unwrap_err();
    assert!(error.to_string().contains("has_tenant") && error.sqlstate() == Some("23514"), "{error}");
    client.batch_execute("alter table integration.data_staging drop constraint has_tenant").await.unwrap();
    client
        .batch_execute("update integration.data_staging set status = 'pending' where status = 'failed'")
        .await
        .unwrap();
    client.batch_execute(REFUSE).await.unwrap();
    assert_eq!(operator.cancel(&ids, Some("no")).await.unwrap().len(), 20);
    assert_eq!(aside(&client, bad).await, as_refused("cancel"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_gives_back_all_that_it_may() {
    let db = Database::new().await;
    let client = db.client().await;
    let bad = one_bad_among(&client, "billing", 5).await;
    let claim = "select integration.register('me', 'host', 1, '', '1', '{}', 60000); \
        select count(*) from integration.claim('billing', 'me', 10)";
    client.batch_execute(claim).await.unwrap();
    client.batch_execute(REFUSE).await.unwrap();
    assert_eq!(count(&client, "select integration.deregister('me')::bigint").await, 5);
    assert_eq!(aside(&client, bad).await, as_refused("release"));
    client.batch_execute(MEND).await.unwrap();
    client.batch_execute("select integration.rescue()").await.unwrap();
    assert_eq!(with_status(&client, "billing", "pending").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_refused_again_and_again_is_looked_at_after_pauses_that_grow() {
    let db = Database::new().await;
    let client = db.client().await;
    one_bad_among(&client, "billing", 0).await;
    client.batch_execute(REFUSE).await.unwrap();
    let mut pauses = Vec::new();
    for _ in 0..9 {
        client.batch_execute("select * from integration.claim('billing', 'me', p_lease => '1 h')").await.unwrap();
        let pause = "select extract(epoch from next_look - tried_at)::bigint from integration.set_aside";
        pauses.push(count(&client, pause).await);
        client.batch_execute("update integration.set_aside set next_look = integration.clock()").await.unwrap();
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    until(&client, "one is set aside", "select count(*) = 1 from integration.set_aside_now").await;
    client.batch_execute("delete from integration.data_staging; select integration.purge_expired()").await.unwrap();
    soon("it is forgotten", async {
        assert_eq!(count(&client, "select count(*) from integration.set_aside").await, 0)
    })
    .await;
}
