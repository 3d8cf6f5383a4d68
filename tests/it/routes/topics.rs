//! Handing copies to subscribers, in the transaction that publishes.

use std::time::Duration;

use doorbell::{ErrorKind, Message, Outcome, doctor, operate::Subscription};

use super::{said, subscribed, to};
use crate::{
    doors::answer,
    support::{Database, Ear, channel, connect, count, echo, grants, message, plain_insert, seen, until},
};

const COPIES: &str = "select concat_ws(',', target_app, status, priority, ordering_key, max_retries, headers ->> 'trace', \
        dedup_key, data ->> 'n', available_at is not null, origin_id) from integration.data_staging order by id";

#[tokio::test(flavor = "multi_thread")]
async fn each_subscriber_gets_a_copy_with_all_but_the_dedup_key_and_the_topic_keeps_the_message() {
    let db = Database::new().await;
    let client = db.client().await;
    subscribed(&db, &["billing", "mailer"]).await;
    let producer = db.broker().await.producer("shop");
    let placed = Message::new("orders", "order.placed", &serde_json::json!({ "n": 7 })).unwrap();
    let placed = placed.priority(3).ordering_key("k").max_retries(9).header("trace", "t").dedup_key("once");
    let id = producer.publish(&placed).await.unwrap();
    assert_eq!(producer.publish(&placed).await.unwrap(), id, "the dedup key counts once");
    producer.publish(&message("orders", 1).delay(Duration::from_secs(3600))).await.unwrap();
    assert_eq!(
        said(&client, COPIES).await,
        "orders,completed,3,k,9,t,once,7,f billing,pending,3,k,9,t,7,f,1 mailer,pending,3,k,9,t,7,f,1 \
         orders,completed,0,f billing,scheduled,0,t,4 mailer,scheduled,0,t,4"
    );
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_copies_are_there_with_the_commit_or_none_and_each_subscriber_hears_one_bell() {
    let db = Database::new().await;
    let mut client = db.client().await;
    subscribed(&db, &["billing", "mailer"]).await;
    let mut ear = Ear::on(&db, &["orders", "billing", "mailer"]).await;
    let mut bells = vec![channel(&client, "billing").await, channel(&client, "mailer").await];
    bells.sort();
    for commit in [false, true] {
        let tx = client.transaction().await.unwrap();
        for n in 0..3 {
            let sql = "insert into integration.data_staging (source_app, target_app, record_type, data) \
                select 'shop', 'orders', 'n', '1' from generate_series(0, $1)";
            tx.execute(sql, &[&n]).await.unwrap();
        }
        if commit {
            tx.commit().await.unwrap()
        } else {
            tx.rollback().await.unwrap()
        }
        let mut heard = ear.heard().await;
        heard.retain(|heard| bells.contains(heard));
        heard.sort();
        assert_eq!(heard, if commit { bells.clone() } else { Vec::new() });
        let expected = if commit { 12 } else { 0 };
        let copies = "select count(*) from integration.data_staging where origin_id is not null";
        assert_eq!(count(&client, copies).await, expected);
    }
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_handle_fail_and_keep_their_order_independently_of_each_other() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = subscribed(&db, &["billing", "mailer", "audit"]).await;
    let broker = db.broker().await;
    let (billing, mut billed) = echo(&broker, "billing").await;
    let (audit, mut audited) = echo(&broker, "audit").await;
    let (tell, mut mailed) = seen();
    let mailer = broker.consumer("mailer").fallback(move |delivery| {
        let _ = tell.send(delivery.id);
        async { Ok(Outcome::reject("no stamps")) }
    });
    let mailer = mailer.start().await.unwrap();
    // The first by one INSERT each, the last by COPY.
    for batch in [1, 40, 500] {
        let messages: Vec<_> = (0..batch).map(|n| message("orders", n)).collect();
        broker.producer("shop").publish_many(&messages).await.unwrap();
    }
    assert_eq!(billed.take(541).await.len() + audited.take(541).await.len() + mailed.take(541).await.len(), 1623);
    until(
        &client,
        "all have ended",
        "select count(*) filter (where status = 'completed') = 541 * 3 \
        and count(*) filter (where status = 'failed' and target_app = 'mailer') = 541 from integration.data_staging",
    )
    .await;
    // Copies lie in the order of what they were made of.
    let disorder = "select count(*) from (select origin_id, lag(origin_id) over (partition by target_app order by id) as before \
        from integration.data_staging where origin_id is not null) c where c.origin_id <= c.before";
    assert_eq!(count(&client, disorder).await, 0);
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    let rows = operator.topics().await.unwrap();
    assert_eq!(rows.iter().map(|row| row.target.clone().unwrap()).collect::<Vec<_>>(), ["audit", "billing", "mailer"]);
    for consumer in [billing, audit, mailer] {
        consumer.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_statement_for_topics_taps_and_queues_hands_each_message_to_whom_it_belongs() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = subscribed(&db, &["billing"]).await;
    // A topic behind a topic, and a queue that is tapped.
    operator.subscribe(&to("billing.events", "orders")).await.unwrap();
    operator.subscribe(&Subscription { tap: true, ..to("billing", "spy") }).await.unwrap();
    let sql = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        select case t when 'mail' then 'crm' else 'shop' end, t, 'n', '1' \
          from unnest('{orders,mail,billing,billing.events}'::text[]) with ordinality u (t, n) order by n";
    client.batch_execute(sql).await.unwrap();
    let found = "select concat(target_app, ':', status, ':', origin_id) from integration.data_staging order by target_app, origin_id nulls first";
    assert_eq!(
        said(&client, found).await,
        "billing:pending: billing:pending:1 billing:pending:4 billing.events:completed: mail:pending: \
         orders:completed: orders:completed:4 spy:pending:1 spy:pending:3 spy:pending:4"
    );
    assert_eq!(operator.routes("billing.events", "n", None).await.unwrap(), ["billing", "spy"]);
    assert_eq!(operator.routes("mail", "n", None).await.unwrap(), ["mail"]);
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_is_kept_counted_and_explained_or_refused_where_the_topic_says_so() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = db.broker().await.operator();
    let only = Subscription { types: vec!["order.*".into()], sources: vec!["shop".into()], ..to("orders", "billing") };
    operator.subscribe(&only).await.unwrap();
    let lost = plain_insert(&client, "orders", "1").await;
    let unrouted = "select sum(messages)::bigint from integration.current_totals where action = 'unrouted'";
    assert_eq!(count(&client, unrouted).await, 1);
    let why = operator.explain(lost).await.unwrap();
    assert_eq!(why[0].code, "unrouted");
    assert_eq!(why[0].fix.as_deref(), Some("doorbell subscribe orders TARGET, then doorbell redrive 1"));
    let findings = operator.doctor(&doctor::Options::default()).await.unwrap().findings;
    assert!(findings.iter().any(|finding| finding.check == "topics" && finding.level == doctor::Level::Warning));
    operator.set_target("orders", r#"{"unrouted": "reject"}"#).await.unwrap();
    let refused = db.broker().await.producer("shop").publish(&message("orders", 2)).await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("23514"), "{refused}");
    let taken = Message::new("orders", "order.placed", &1).unwrap();
    let id = db.broker().await.producer("shop").publish(&taken).await.unwrap();
    assert!(db.broker().await.producer("crm").publish(&taken).await.is_err(), "another source");
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 3);
    let routed = operator.explain(id).await.unwrap();
    assert_eq!(routed[0].code, "routed");
    let copy = count(&client, "select max(id) from integration.data_staging").await;
    assert!(routed[0].sentence.contains(&format!("billing ({copy}, pending)")), "{}", routed[0].sentence);
    assert_eq!(operator.show(copy, false).await.unwrap().unwrap().origin, Some(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_lead_back_are_refused_and_made_by_hand_they_fail_the_publish() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = subscribed(&db, &["a"]).await;
    operator.subscribe(&to("a", "b")).await.unwrap();
    for (topic, target) in [("b", "orders"), ("a", "orders"), ("b", "a"), ("orders", "orders")] {
        let error = operator.subscribe(&to(topic, target)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IllegalTransition, "{topic} to {target}: {error}");
    }
    let chain = "select integration.subscribe('t' || n, 't' || n + 1) from generate_series(1, 8) n";
    client.batch_execute(chain).await.unwrap();
    for (topic, target) in [("t9", "t10"), ("t0", "t1")] {
        assert!(operator.subscribe(&to(topic, target)).await.unwrap_err().to_string().contains("9 times"));
    }
    client
        .batch_execute("insert into integration.subscriptions (topic, target_app) values ('b', 'orders')")
        .await
        .unwrap();
    let circle = "insert into integration.data_staging (source_app, target_app, record_type, data) values ('s', 'orders', 'n', '1')";
    assert_eq!(answer(&client, circle).await, "54001");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_in_use_becomes_no_topic_and_what_waits_for_a_topic_is_handed_on_by_maintenance() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = db.broker().await.operator();
    plain_insert(&client, "orders", "1").await;
    let error = operator.subscribe(&to("orders", "billing")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IllegalTransition);
    assert!(operator.subscribe(&Subscription { tap: true, ..to("orders", "billing") }).await.unwrap());
    // Who insists may; a message is moved there, too, and one put back.
    operator.set_target("orders", r#"{"kind": "topic"}"#).await.unwrap();
    let moved = plain_insert(&client, "mail", "2").await;
    assert_eq!(operator.move_to(&[moved], "orders").await.unwrap(), [moved]);
    assert_eq!(operator.maintain().await.unwrap().copied, 2);
    let billing = "select count(*) from integration.data_staging where target_app = 'billing' and status = 'pending'";
    assert_eq!(count(&client, billing).await, 2);
    assert_eq!(operator.redrive(&[moved]).await.unwrap(), [moved]);
    assert_eq!((operator.maintain().await.unwrap().copied, count(&client, billing).await), (1, 3));
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    assert!(operator.unsubscribe("orders", "billing").await.unwrap());
    assert!(!operator.unsubscribe("orders", "billing").await.unwrap());
    plain_insert(&client, "orders", "1").await;
    assert_eq!(count(&client, billing).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_somebody_has_emptied_come_back_knowing_that_there_are_topics() {
    let db = Database::new().await;
    let client = db.client().await;
    subscribed(&db, &["billing"]).await;
    // Whoever does the maintenance brings them back.
    client.batch_execute("delete from integration.settings; select integration.lead('somebody', 1000)").await.unwrap();
    plain_insert(&client, "orders", "1").await;
    let copies = "select count(*) from integration.data_staging where target_app = 'billing'";
    assert_eq!(count(&client, copies).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_needs_no_right_on_subscribers_and_may_neither_subscribe_nor_call_a_message_a_copy() {
    let db = Database::new().await;
    subscribed(&db, &["billing"]).await;
    let name = format!("publisher_{}", db.name());
    let made = format!("create role {name} login; {}", grants("publisher", &name));
    db.client().await.batch_execute(&made).await.unwrap();
    let publisher = connect(&db.url.replace("user=postgres", &format!("user={name}"))).await;
    plain_insert(&publisher, "orders", "1").await;
    let copies = "select count(*) from integration.data_staging where target_app = 'billing' and origin_id = 1";
    assert_eq!(count(&db.client().await, copies).await, 1);
    let forged = "insert into integration.data_staging (source_app, target_app, record_type, data, origin_id) values ('s', 'billing', 'n', '1', 1)";
    assert_eq!(answer(&publisher, forged).await, "23514");
    for call in ["subscribe('orders', 'mine')", "unsubscribe('orders', 'billing')", "replay('orders')", "keep_topics()"]
    {
        assert_eq!(answer(&publisher, &format!("select integration.{call}")).await, "42501", "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_subscribers_get_a_copy_each_and_only_of_what_they_are_subscribed_to() {
    let db = Database::new().await;
    let client = db.client().await;
    let subscribe = "select integration.subscribe('orders', 'app' || n, array[case n % 2 when 0 then 'n' else 'm' end]) \
        from generate_series(1, 1000) n";
    client.batch_execute(subscribe).await.unwrap();
    db.broker().await.producer("shop").publish(&message("orders", 1)).await.unwrap();
    let copies = "select (count(*) = 500 and count(distinct target_app) = 500 \
        and bool_and(substr(target_app, 4)::integer % 2 = 0))::integer::bigint \
        from integration.data_staging where origin_id = 1 and status = 'pending'";
    assert_eq!(count(&client, copies).await, 1);
}
