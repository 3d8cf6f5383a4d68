//! Claims of one target take turns. Few wait for theirs, the others come back, and nothing depends on locks that anybody can take.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use doorbell::{BrokerConfig, ConsumerConfig, MessageId, Outcome};
use futures::future::join_all;
use tokio_postgres::Client;

use crate::{
    doors::role,
    support::{Database, bells_only, count, message, until_count},
};

/// So many may wait for a turn, or claim after they have.
const ROOM: usize = 4;
const SESSIONS: usize = 40;

const WAITING: &str = "select count(*) from pg_locks l join pg_database d on d.oid = l.database \
    where l.locktype = 'advisory' and not l.granted and l.classid = (integration.lock_class() + 3)::oid \
      and d.datname = current_database()";

/// What a session that wants a turn is told; none: claim.
async fn told(client: &Client, seen: Option<&str>) -> Option<String> {
    client.query_one("select integration.take_turn('billing', $1)", &[&seen]).await.unwrap().get(0)
}

/// Takes the turn of billing, or what stands before it, for as long as the session lives.
async fn keep(client: &Client, of: &Client, turn: bool, room: bool) {
    let class = count(of, "select integration.lock_class()::bigint").await;
    let hash = count(of, "select hashtext('billing')::bigint").await;
    let places = (0..ROOM).filter(|_| room).map(|place| (class + 1, format!("({hash}) # {place}")));
    for (class, key) in places.chain(turn.then(|| (class + 3, hash.to_string()))) {
        client.batch_execute(&format!("select pg_advisory_lock({class}, ({key})::integer)")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_the_turn_that_somebody_has_a_few_wait_and_the_others_are_turned_away() {
    let db = Database::new().await;
    let first = db.client().await;
    first.batch_execute("begin").await.unwrap();
    assert_eq!(told(&first, None).await, None);
    let others: Vec<Client> = join_all((0..SESSIONS).map(|_| db.client())).await;
    // Their transactions stay open, so that nobody leaves.
    let answers = join_all(others.iter().map(async |client| {
        client.batch_execute("begin").await.unwrap();
        told(client, None).await
    }));
    let answers = answers.await;
    let turned_away = answers.iter().filter(|answer| answer.as_deref() == Some("")).count();
    assert_eq!((turned_away, answers.len()), (SESSIONS - ROOM, SESSIONS));
    // Each target has a turn of its own.
    assert_eq!(count(&others[0], "select count(*) from integration.take_turn('mailer') t where t is null").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_turned_away_may_claim_once_the_same_transaction_has_had_the_turn_each_time_it_asked() {
    let db = Database::new().await;
    let (holder, room, client) = (db.client().await, db.client().await, db.client().await);
    keep(&room, &client, false, true).await;
    holder.batch_execute("begin").await.unwrap();
    assert_eq!(told(&holder, None).await, None);
    assert_eq!(told(&client, None).await.as_deref(), Some(""));
    let first = told(&client, Some("")).await.unwrap();
    assert_ne!(first, "");
    holder.batch_execute("commit; begin").await.unwrap();
    assert_eq!(told(&holder, None).await, None);
    let second = told(&client, Some(&first)).await.unwrap();
    assert!(second != first && !second.is_empty(), "{first} {second}");
    assert_eq!(told(&client, Some(&second)).await, None);
    holder.batch_execute("commit").await.unwrap();
    assert_eq!(told(&client, None).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_who_has_the_turn_keeps_nobody_from_asking() {
    let db = Database::new().await;
    let (stranger, client, other) = (role(&db, "neighbour").await, db.client().await, db.client().await);
    keep(&stranger, &client, true, true).await;
    client.batch_execute("begin").await.unwrap();
    assert_eq!(told(&client, Some("")).await, None);
    // While the transaction of the first is still open.
    assert_eq!(told(&other, Some("")).await, None);
    assert_eq!(told(&other, None).await.as_deref(), Some(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_consumers_of_one_target_handle_each_message_once_and_few_of_them_wait_at_a_time() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker_with(BrokerConfig { connections_max: SESSIONS, ..BrokerConfig::default() }).await;
    let runs: Arc<Mutex<HashMap<MessageId, usize>>> = Arc::default();
    client.batch_execute("select integration.pause('billing', 'test')").await.unwrap();
    let mut consumers = Vec::new();
    for _ in 0..SESSIONS {
        let runs = runs.clone();
        let consumer = broker.consumer("billing").config(ConsumerConfig { hold: None, ..bells_only() });
        let consumer = consumer.on("n", move |_: i64, delivery| {
            *runs.lock().unwrap().entry(delivery.id).or_default() += 1;
            async { Ok(Outcome::Done) }
        });
        consumers.push(consumer.start().await.unwrap());
    }
    let messages: Vec<_> = (0..10_000).map(|n| message("billing", n)).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    client.batch_execute("select integration.resume('billing')").await.unwrap();
    let (mut most, mut looks) = (0, 0);
    while count(&client, "select integration.is_drained('billing')::integer::bigint").await == 0 {
        most = most.max(count(&client, WAITING).await);
        looks += 1;
    }
    assert!(most <= ROOM as i64, "{most} waited, seen by {looks} looks");
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
    let runs = runs.lock().unwrap();
    assert_eq!((runs.len(), runs.values().max()), (messages.len(), Some(&1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_all_these_locks_for_ever_keeps_no_consumer_from_its_messages() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let (stranger, colleague) = (role(&db, "neighbour").await, role(&db, "consumer").await);
    keep(&stranger, &client, true, true).await;
    let consumer = broker.consumer("billing").config(ConsumerConfig { hold: None, ..bells_only() });
    let consumer = consumer.on("n", |_: i64, _| async { Ok(Outcome::Done) }).start().await.unwrap();
    broker.producer("shop").publish(&message("billing", 1)).await.unwrap();
    until_count(&client, "completed", 1).await;
    drop(stranger);
    keep(&colleague, &client, true, true).await;
    broker.producer("shop").publish(&message("billing", 2)).await.unwrap();
    until_count(&client, "completed", 2).await;
    consumer.shutdown().await.unwrap();
}
