//! Publishing again what was handled.

use doorbell::operate::{Moment, Replay};

use super::{said, subscribed};
use crate::support::{Database, count, echo, message, stop_the_clock, until_count};

const HISTORY: &str = "insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key, priority, created_at) \
        select case n % 2 when 0 then 'shop' else 'crm' end, 'billing', case n % 3 when 0 then 'order.placed' else 'paid' end, \
            to_jsonb(n), 'key ' || n, n % 5, \
            case when n <= 1500 then now() - interval '10 days' else now() end from generate_series(1, 3000) n; \
    update integration.data_staging set status = 'completed' where (data #>> '{}')::int <= 2900; \
    update integration.data_staging set status = 'failed' where (data #>> '{}')::int > 2950; \
    update integration.data_staging set processed_at = now() - interval '10 days' where (data #>> '{}')::int <= 1500; \
    select integration.maintain()";

fn wanted() -> Replay {
    Replay { target: "billing".into(), to: Some("mailer".into()), ..Replay::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_completed_is_copied_once_and_in_order_from_the_table_and_the_archive() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = db.broker().await.operator();
    client.batch_execute(HISTORY).await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.data_staging_archive").await, 1500);
    assert_eq!(operator.replay(&Replay { dry_run: true, ..wanted() }).await.unwrap(), 2900);
    assert_eq!(count(&client, "select count(*) from integration.data_staging where target_app = 'mailer'").await, 0);
    assert_eq!(operator.replay(&wanted()).await.unwrap(), 2900);
    let wrong = "select count(*) from integration.data_staging c \
        left join (select id, data, ordering_key, priority from integration.data_staging \
                   union all select id, data, ordering_key, priority from integration.data_staging_archive) o on o.id = c.origin_id \
        where c.target_app = 'mailer' and ((c.data, c.ordering_key, c.priority) is distinct from (o.data, o.ordering_key, o.priority) \
           or c.headers is distinct from '{\"replayed\": \"true\"}' or c.status <> 'pending')";
    assert_eq!(count(&client, wrong).await, 0);
    let order = "select string_agg(origin_id::text, ',' order by id) = string_agg(origin_id::text, ',' order by origin_id) \
        and count(distinct origin_id) = 2900 from integration.data_staging where target_app = 'mailer'";
    assert!(client.query_one(order, &[]).await.unwrap().get::<_, bool>(0));
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    let of_shop = Replay { types: vec!["order.#".into()], sources: vec!["shop".into()], dry_run: true, ..wanted() };
    assert_eq!(operator.replay(&of_shop).await.unwrap(), 483);
    let later = Replay { since: Some(Moment::Ago(std::time::Duration::ZERO)), ..wanted() };
    assert_eq!(operator.replay(&later).await.unwrap(), 0);
    let audited = "select string_agg(details ->> 'messages', ',') from integration.audit_log where action = 'replayed'";
    assert!(!said(&client, audited).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn replaying_a_topic_reaches_all_who_are_subscribed_now_and_comes_to_an_end() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = subscribed(&db, &["billing"]).await;
    let publish = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        select 'shop', 'orders', 'n', '1' from generate_series(1, 1200)";
    client.batch_execute(publish).await.unwrap();
    operator.subscribe(&super::to("orders", "mailer")).await.unwrap();
    assert_eq!(operator.replay(&Replay { target: "orders".into(), ..Replay::default() }).await.unwrap(), 1200);
    let copies = "select string_agg(c.target_app || c.count, ' ' order by c.target_app) from (select target_app, count(*) \
        from integration.data_staging where target_app <> 'orders' group by 1) c";
    assert_eq!(said(&client, copies).await, "billing2400 mailer1200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_told_what_its_message_is_a_copy_of_and_whether_it_was_published_again() {
    let db = Database::new().await;
    let operator = subscribed(&db, &["billing"]).await;
    let broker = db.broker().await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    let producer = broker.producer("shop");
    let published = producer.publish(&message("orders", 1)).await.unwrap();
    let copy = told.next().await;
    assert_eq!((copy.origin(), copy.replayed()), (Some(published), false));
    producer.publish(&message("billing", 2)).await.unwrap();
    let plain = told.next().await;
    assert_eq!((plain.origin(), plain.replayed()), (None, false));
    until_count(&db.client().await, "completed", 3).await;
    operator.replay(&Replay { target: "billing".into(), ..Replay::default() }).await.unwrap();
    let mut again: Vec<_> = told.take(2).await.iter().map(|again| (again.origin(), again.replayed())).collect();
    again.sort_unstable();
    assert_eq!(again, [(Some(published), true), (Some(plain.id), true)]);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replayed_expires_as_the_target_says_from_now_on_and_not_as_it_did_when_it_was_published() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let broker = db.broker().await;
    let wanted_for_a_minute = message("billing", 1).expires_after(std::time::Duration::from_secs(60));
    broker.producer("shop").publish(&wanted_for_a_minute).await.unwrap();
    let complete = "select integration.complete(c.id, c.attempt, 'me') from integration.claim('billing', 'me', p_lease => '1 h') c; \
        select integration.set_target('mailer', '{\"expire_after\": \"1 h\"}')";
    client.batch_execute(complete).await.unwrap();
    stop_the_clock(&client, 600).await;
    let operator = broker.operator();
    for to in ["billing", "mailer"] {
        let replay = Replay { to: Some(to.into()), target: "billing".into(), ..Replay::default() };
        assert_eq!(operator.replay(&replay).await.unwrap(), 1, "{to}");
    }
    let expires = "select concat_ws(' ', d.target_app, d.status, extract(epoch from e.expires_at - integration.clock())::integer) || ';' \
        from integration.data_staging d left join integration.expiring e on e.id = d.id and e.created_at = d.created_at \
        where d.origin_id is not null order by d.id";
    assert_eq!(said(&client, expires).await, "billing pending; mailer pending 3600;");
}
