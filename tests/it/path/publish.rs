//! Publishing: together with business data, many at once, in whatever form.

use std::time::Duration;

use doorbell::{ErrorKind, Message, MessageId, Producer};
use serde_json::{json, value::RawValue};
use tokio_postgres::Client;

use crate::support::{Database, Ear, channel, count, echo, message, plain_insert};

async fn messages(client: &Client) -> i64 {
    count(client, "select count(*) from integration.data_staging").await
}

async fn producer(db: &Database) -> Producer {
    db.broker().await.producer("shop")
}

/// Accepted here, refused by the server: a number that PostgreSQL cannot hold.
fn refused_by_the_server() -> Message {
    Message::from_raw("billing", "n", RawValue::from_string("1e400000".into()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_and_the_business_data_appear_together_or_not_at_all() {
    let db = Database::new().await;
    let mut client = db.client().await;
    let observer = db.client().await;
    observer.batch_execute("create table orders (id int)").await.unwrap();
    let mut ear = Ear::on(&db, &["billing"]).await;
    let producer = producer(&db).await;
    for many in [1, 3, 100] {
        for commit in [false, true] {
            let tx = client.transaction().await.unwrap();
            tx.execute("insert into orders values (1)", &[]).await.unwrap();
            let batch = vec![message("billing", 1); many];
            let ids = match many {
                1 => vec![producer.publish_in(&tx, &batch[0]).await.unwrap()],
                _ => producer.publish_many_in(&tx, &batch).await.unwrap(),
            };
            assert_eq!(ids.len(), many);
            assert_eq!(messages(&observer).await, 0, "nobody else sees it before the commit");
            assert!(ear.heard().await.is_empty());
            if commit {
                tx.commit().await.unwrap();
            } else {
                tx.rollback().await.unwrap();
            }
            let expected = if commit { many as i64 } else { 0 };
            assert_eq!(messages(&observer).await, expected);
            assert_eq!(count(&observer, "select count(*) from orders").await, i64::from(commit));
            assert_eq!(ear.heard().await.len(), usize::from(commit), "one bell per transaction");
        }
        observer.batch_execute("delete from orders; delete from integration.data_staging").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_keep_their_order_and_all_their_properties() {
    let db = Database::new().await;
    let client = db.client().await;
    let producer = producer(&db).await;
    assert!(producer.publish_many(&[]).await.unwrap().is_empty());
    // One INSERT from arrays, one by one because of the dedup keys, and COPY.
    for (many, keys) in [(63, false), (63, true), (64, false), (500, false), (70, true)] {
        let message = |n: i32| {
            let mut message =
                Message::new("billing", format!("type {n}"), &json!({ "n": n })).unwrap().priority(n - 30);
            if n % 2 == 0 {
                message = message.header("n", n.to_string()).ordering_key(format!("key {n}")).max_retries(n as u32);
            }
            if keys { message.dedup_key(format!("{many}/{n}")) } else { message }
        };
        let ids = producer.publish_many(&(0..many).map(message).collect::<Vec<_>>()).await.unwrap();
        let sql = "select d.record_type, d.data->>'n', d.priority, d.headers->>'n', d.ordering_key, d.max_retries, \
            d.status, d.source_app, d.target_app from unnest($1::bigint[]) with ordinality as i (id, at) \
            join integration.data_staging d using (id) order by i.at";
        let rows = client.query(sql, &[&ids]).await.unwrap();
        assert_eq!(rows.len(), many as usize);
        for (n, row) in (0..many).zip(&rows) {
            let even = n % 2 == 0;
            assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), (&*format!("type {n}"), &*n.to_string()));
            assert_eq!(row.get::<_, i32>(2), n - 30);
            assert_eq!(row.get::<_, Option<String>>(3), even.then(|| n.to_string()));
            assert_eq!(row.get::<_, Option<String>>(4), even.then(|| format!("key {n}")));
            assert_eq!(row.get::<_, Option<i32>>(5), even.then_some(n));
            assert_eq!(
                [row.get::<_, &str>(6), row.get::<_, &str>(7), row.get::<_, &str>(8)],
                ["pending", "shop", "billing"]
            );
        }
        assert!(ids.is_sorted());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_message_among_many_publishes_none() {
    let db = Database::new().await;
    let client = db.client().await;
    let producer = producer(&db).await;
    for many in [3, 100] {
        let mut batch = vec![message("billing", 1); many];
        batch[2] = message("", 1);
        let error = producer.publish_many(&batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().starts_with(&format!("message 3 of {many}: the target is empty")), "{error}");
        batch[2] = refused_by_the_server();
        let error = producer.publish_many(&batch).await.unwrap_err();
        assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Database, Some("22003")), "{error}");
        assert!(!error.is_transient());
        assert_eq!(messages(&client).await, 0);
        // The pool's connection is as good as before.
        batch.remove(2);
        assert_eq!(producer.publish_many(&batch).await.unwrap().len(), many - 1);
        client.batch_execute("delete from integration.data_staging").await.unwrap();
    }
    let error = producer.publish(&refused_by_the_server()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("22003"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_is_scheduled_by_the_servers_clock() {
    let db = Database::new().await;
    let client = db.client().await;
    let producer = producer(&db).await;
    let soon = message("billing", 1).delay(Duration::from_secs(60));
    let never = message("billing", 1).delay(Duration::MAX);
    let now = message("billing", 1).delay(Duration::ZERO);
    let mut ids = vec![producer.publish(&soon).await.unwrap()];
    ids.extend(producer.publish_many(&[soon.clone(), now.clone()]).await.unwrap());
    ids.extend(producer.publish_many(&[soon.dedup_key("a"), now.dedup_key("b")]).await.unwrap());
    ids.push(producer.publish(&never).await.unwrap());
    ids.extend(producer.publish_many(&[never]).await.unwrap());
    let sql = "select status || coalesce(round(extract(epoch from available_at - created_at))::text, '') \
        from unnest($1::bigint[]) with ordinality as i (id, at) join integration.data_staging d using (id) order by at";
    let rows = client.query(sql, &[&ids]).await.unwrap();
    let got: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let century = "scheduled3153600000";
    assert_eq!(got, ["scheduled60", "scheduled60", "pending", "scheduled60", "pending", century, century]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_dedup_key_answers_with_the_first_id_whichever_way_it_is_published() {
    let db = Database::new().await;
    let mut client = db.client().await;
    let producer = producer(&db).await;
    let keyed = |n| message("billing", n).dedup_key("order 7");
    let first = producer.publish(&keyed(1)).await.unwrap();
    assert_eq!(producer.publish(&keyed(2)).await.unwrap(), first);
    let many = producer.publish_many(&[message("billing", 3), keyed(4), keyed(5)]).await.unwrap();
    assert_eq!(many[1..], [first, first]);
    assert_ne!(many[0], first);
    // Enough for COPY, if it knew keys.
    assert_eq!(producer.publish_many(&vec![keyed(6); 70]).await.unwrap(), vec![first; 70]);
    let tx = client.transaction().await.unwrap();
    assert_eq!(producer.publish_in(&tx, &keyed(7)).await.unwrap(), first);
    assert_eq!(producer.publish_many_in(&tx, &[keyed(8)]).await.unwrap(), [first]);
    tx.commit().await.unwrap();
    assert_eq!(messages(&client).await, 2);
    let twice = message("billing", 9).dedup_key("new");
    let new = producer.publish_many(&[twice.clone(), twice]).await.unwrap();
    assert_eq!(new[0], new[1]);

    let other = db.broker().await.producer("other shop").publish(&keyed(10)).await.unwrap();
    assert_ne!(other, first, "keys are a source's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinals_tell_which_of_many_a_message_was() {
    let db = Database::new().await;
    let client = db.client().await;
    for keys in ["null", "array['a', 'b', 'a']"] {
        let sql = format!(
            "select array_agg(ordinal order by ordinal) from integration.publish_many('psql', \
                array['x', 'x', 'x'], array['n', 'n', 'n'], array['1', '2', '3'], p_dedup_keys => {keys})"
        );
        let ordinals: Vec<Option<i32>> = client.query_one(&sql, &[]).await.unwrap().get(0);
        assert_eq!(ordinals, [Some(1), Some(2), Some(3)], "{keys}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_connections_publishing_one_dedup_key_make_one_message() {
    let db = Database::new().await;
    let producer = producer(&db).await;
    for round in 0..20 {
        let keyed = message("billing", 1).dedup_key(format!("round {round}"));
        let all: Vec<MessageId> =
            futures::future::try_join_all((0..10).map(|_| producer.publish(&keyed))).await.unwrap();
        assert_eq!(all, vec![all[0]; 10]);
    }
    assert_eq!(messages(&db.client().await).await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_insert_with_a_used_dedup_key_fails() {
    let db = Database::new().await;
    let client = db.client().await;
    let insert = |source: &str, keys: &[&str]| {
        let rows: Vec<String> = keys.iter().map(|key| format!("('{source}', 'billing', 'n', '1', '{key}')")).collect();
        format!(
            "insert into integration.data_staging (source_app, target_app, record_type, data, dedup_key) values {}",
            rows.join(", ")
        )
    };
    client.execute(&insert("shop", &["a"]), &[]).await.unwrap();
    for refused in [insert("shop", &["a"]), insert("shop", &["b", "a"]), insert("shop", &["c", "c"])] {
        let error = client.execute(&refused, &[]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "23505", "{refused}: {error:?}");
    }
    client.execute(&insert("other shop", &["a"]), &[]).await.unwrap();
    let first = count(&client, "select min(id) from integration.data_staging").await;
    let again = producer(&db).await.publish(&message("billing", 1).dedup_key("a")).await.unwrap();
    assert_eq!(again, first, "publish answers with the plain insert's id");
    assert_eq!(messages(&client).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dedup_key_is_used_until_its_window_ends_whatever_became_of_the_message() {
    let db = Database::new().await;
    let client = db.client().await;
    let producer = producer(&db).await;
    let keyed = message("billing", 1).dedup_key("order 7");
    let first = producer.publish(&keyed).await.unwrap();
    client.batch_execute("delete from integration.data_staging").await.unwrap();
    assert_eq!(producer.publish(&keyed).await.unwrap(), first);
    assert_eq!(messages(&client).await, 0);
    let end = "update integration.dedup_keys set expires_at = integration.clock() - interval '1 second'";
    client.execute(end, &[]).await.unwrap();
    let second = producer.publish(&keyed).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(producer.publish_many(&[keyed]).await.unwrap(), [second]);
    assert_eq!(messages(&client).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_published_is_refused_with_the_value_and_the_limit() {
    let db = Database::new().await;
    let long = "x".repeat(201);
    let raw = |json: &str| Message::from_raw("billing", "n", RawValue::from_string(json.into()).unwrap());
    let refusals = [
        (message("", 1), "the target is empty; give a name of 1 to 50 characters"),
        (message(&long[..51], 1), "51 characters; at most 50"),
        (Message::new("billing", "", &1).unwrap(), "the record type is empty"),
        (Message::new("billing", "a\0b", &1).unwrap(), "the record type \"a\\0b\" contains a NUL"),
        (message("billing", 1).dedup_key(""), "the dedup key has 0 characters; 1 to 200"),
        (message("billing", 1).dedup_key("\0"), "the dedup key contains a NUL"),
        (message("billing", 1).ordering_key(&long), "the ordering key has 201 characters; 1 to 200"),
        (message("billing", 1).header("h", "a\0"), "header \"h\" contains a NUL"),
        (raw("\"\\u0000\""), "payload of a \"n\" message for \"billing\": contains \\u0000"),
        (raw("\"\\ud800\""), "half a surrogate pair"),
        (raw(&format!("{}{}", "[".repeat(121), "]".repeat(121))), "nested deeper than 120 levels"),
        (raw(&format!("\"{}\"", "x".repeat(1 << 20))), "1048578 bytes; the limit is 1048576"),
    ];
    let shop = producer(&db).await;
    for (message, words) in &refusals {
        let error = shop.publish(message).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(words), "{error} should say {words}");
    }
    let error = db.broker().await.producer("x".repeat(51)).publish(&message("billing", 1)).await.unwrap_err();
    assert!(error.to_string().contains("the source"), "{error}");
    assert_eq!(messages(&db.client().await).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_and_values_travel_from_publish_through_the_bell_to_the_handler() {
    let db = Database::new().await;
    let client = db.client().await;
    let names =
        ["𝕏".repeat(50), "Billing \"EU\"; drop table x --".into(), "it's".into(), " 🔔\n\\".into(), "%I".into()];
    let mut channels = Vec::new();
    for name in &names {
        let (consumer, mut told) = echo(&db.broker().await, name).await;
        let sent = Message::new(name, name, &json!({ name: "\u{1}\u{10ffff}" })).unwrap().header(name, name);
        let sent = sent.ordering_key(name).dedup_key(name);
        let id = db.broker().await.producer(name).publish(&sent).await.unwrap();
        let got = told.next().await;
        assert_eq!((got.id, &got.source, &got.target, &got.record_type), (id, name, name, name));
        assert_eq!((&got.headers[name], got.ordering_key.as_ref()), (name, Some(name)));
        assert_eq!(got.json::<serde_json::Value>().unwrap(), json!({ name: "\u{1}\u{10ffff}" }));
        plain_insert(&client, name, "2").await;
        assert_eq!(told.next().await.payload(), "2");
        consumer.shutdown().await.unwrap();
        channels.push(channel(&client, name).await);
    }
    assert!(channels.iter().all(|channel| channel.len() <= 63 && channel.is_ascii()));
    channels.sort();
    channels.dedup();
    assert_eq!(channels.len(), names.len());
}
