//! What many tasks of one process publish side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::Duration,
};

use doorbell::{Broker, BrokerConfig, ErrorKind, Message, Producer, Settings};
use futures::future::join_all;
use serde_json::json;
use tokio_postgres::Client;

use crate::support::{Database, count, until};

/// With connections for all, so that none waits for another's.
async fn producer(db: &Database) -> Producer {
    let config = BrokerConfig { connections_max: 20, ..BrokerConfig::default() };
    let broker = Broker::with_config(Settings::parse(&db.url).unwrap(), config).await.unwrap();
    broker.producer("shop")
}

fn numbered(n: usize) -> Message {
    Message::new("billing", "order.placed", &json!({ "n": n })).unwrap()
}

/// Has an insert of a message whose payload is marked wait for the lock 42, or fail.
const GUARD: &str = "create function public.guard() returns trigger language plpgsql as $$
    begin
        if new.data ? 'slow' then perform pg_advisory_xact_lock(42); end if;
        if new.data ? 'bad' then raise exception 'bad payload' using errcode = 'check_violation'; end if;
        return new;
    end $$;
    create trigger guard before insert on integration.data_staging for each row execute function public.guard()";

/// Who waits for it.
const WAITING: &str = "from pg_locks where locktype = 'advisory' and not granted \
    and database = (select oid from pg_database where datname = current_database())";

/// Somebody has the lock.
async fn behind_a_lock() -> (Database, Client, Producer) {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(GUARD).await.unwrap();
    client.execute("select pg_advisory_lock(42)", &[]).await.unwrap();
    let producer = producer(&db).await;
    (db, client, producer)
}

fn slow() -> Message {
    Message::new("billing", "order.placed", &json!({ "slow": 1 })).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_published_side_by_side_share_statements_and_each_call_has_its_own_id() {
    let db = Database::new().await;
    let producer = producer(&db).await;
    let messages: Vec<Message> = (0..300)
        .map(|n| match n % 3 {
            0 => numbered(n).header("n", n.to_string()).priority(n as i32),
            1 => numbered(n).ordering_key(n.to_string()),
            _ => numbered(n).delay(Duration::from_secs(3600)),
        })
        .collect();
    let ids = join_all(messages.iter().map(|message| producer.publish(message))).await;
    let ids: BTreeMap<i64, usize> = ids.into_iter().enumerate().map(|(n, id)| (id.unwrap(), n)).collect();
    let rows = db
        .client()
        .await
        .query(
            "select d.id, (d.data ->> 'n')::integer, d.xmin::text, d.status, d.priority, d.headers ->> 'n', d.ordering_key
               from integration.data_staging d order by d.id",
            &[],
        )
        .await
        .unwrap();
    let told: Vec<(i64, i32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(told, ids.iter().map(|(id, n)| (*id, *n as i32)).collect::<Vec<_>>());
    for row in &rows {
        let (n, text): (i32, Option<String>) = (row.get(1), Some(row.get::<_, i32>(1).to_string()));
        let of_it = (row.get(3), row.get(4), row.get::<_, Option<String>>(5), row.get::<_, Option<String>>(6));
        let expected = match n % 3 {
            0 => ("pending", n, text, None),
            1 => ("pending", 0, None, text),
            _ => ("scheduled", 0, None, None),
        };
        assert_eq!(of_it, expected, "message {n}");
    }
    let transactions: BTreeSet<String> = rows.iter().map(|row| row.get(2)).collect();
    assert!(transactions.len() < 300, "each has been committed by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_refused_takes_none_along_that_was_published_beside_it() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(GUARD).await.unwrap();
    let producer = producer(&db).await;
    let messages: Vec<Message> = (0..100)
        .map(|n| match n % 10 {
            7 => Message::new("billing", "order.placed", &json!({ "n": n, "bad": true })).unwrap(),
            _ => numbered(n),
        })
        .collect();
    let published = join_all(messages.iter().map(|message| producer.publish(message))).await;
    for (n, published) in published.iter().enumerate() {
        match published {
            Ok(_) => assert_ne!(n % 10, 7),
            Err(error) => assert!(n % 10 == 7 && error.to_string().contains("bad payload"), "{n}: {error}"),
        }
    }
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 90);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_statements_that_take_long() {
    let (_db, client, producer) = behind_a_lock().await;
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let producer = producer.clone();
            tokio::spawn(async move { producer.publish(&slow()).await })
        })
        .collect();
    until(&client, "all wait for the lock", &format!("select count(*) = 4 {WAITING}")).await;
    // Behind none of them.
    for n in 0..10 {
        producer.publish(&numbered(n)).await.unwrap();
    }
    client.execute("select pg_advisory_unlock(42)", &[]).await.unwrap();
    for slow in slow {
        slow.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_others_wait_keeps_none_of_them() {
    let (_db, client, producer) = behind_a_lock().await;
    let slow = slow();
    {
        let both = format!("select count(*) = 2 {WAITING}");
        let leaving = join_all((0..2).map(|_| producer.publish(&slow)));
        tokio::select! {
            _ = leaving => panic!("the lock is held"),
            () = until(&client, "both wait for the lock", &both) => {}
        }
    }
    let published = join_all((0..50).map(|n| {
        let (producer, message) = (producer.clone(), numbered(n));
        async move { producer.publish(&message).await }
    }));
    published.await.into_iter().for_each(|id| assert!(id.is_ok()));
    client.execute("select pg_advisory_unlock(42)", &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_on_the_way_is_unknown_to_all_who_shared_it() {
    let (_db, client, producer) = behind_a_lock().await;
    let slow = slow();
    let mut publishing = pin!(join_all((0..30).map(|_| producer.publish(&slow))));
    let end = format!("select pg_terminate_backend(pid) {WAITING}");
    let published = loop {
        tokio::select! {
            published = &mut publishing => break published,
            ended = client.query(&end, &[]) => drop(ended.unwrap()),
        }
    };
    for published in published {
        assert_eq!(published.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    }
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 0);
}
