//! Locks that any session can take, and a notification queue that any session can fill, stop nothing that must happen.

use doorbell_server::{EphemeralOptions, Server};

use super::role;
use crate::support::{Database, Ear, channel, connect, count, message, newer, plain_insert, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_holds_every_advisory_lock_of_ours_stops_neither_rescue_nor_claims_nor_folding() {
    let db = Database::new().await;
    let (stranger, client) = (role(&db, "neighbour").await, db.client().await);
    let class = count(&client, "select integration.lock_class()::bigint").await;
    let hash = count(&client, "select hashtext('billing')::bigint").await;
    for (class, key) in [(class, 0), (class, 1), (class, 2), (class + 1, hash), (class + 3, hash)] {
        stranger.batch_execute(&format!("select pg_advisory_lock({class}, ({key})::integer)")).await.unwrap();
    }
    let broker = db.broker().await;
    broker.producer("shop").publish(&message("billing", 1)).await.unwrap();
    let limited = "insert into integration.targets (target_app, max_in_flight) values ('billing', 5); \
        update integration.data_staging set status = 'processing', owner = 'ghost'";
    client.batch_execute(limited).await.unwrap();
    client.batch_execute("set lock_timeout = '10 s'").await.unwrap();
    assert_eq!(count(&client, "select integration.rescue()::bigint").await, 1);
    assert!(count(&client, "select integration.fold()").await > 0);
    client.batch_execute("select * from integration.recount()").await.unwrap();
    // It is not waited for.
    assert_eq!(count(&client, "select count(*) from integration.take_turn('billing') t where t is null").await, 1);
    client.batch_execute("update integration.data_staging set crash_count = 0").await.unwrap();
    assert_eq!(
        count(&client, "select count(*) from integration.claim('billing', 'me', 9, p_lease => '1 min')").await,
        1
    );
    broker.migrate().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_passes_a_gate_and_one_session_at_a_time() {
    let db = Database::new().await;
    let (first, second) = (db.client().await, db.client().await);
    first.batch_execute("begin; select integration.pass_gate('rescue')").await.unwrap();
    let passes = "select integration.pass_gate('rescue')::integer::bigint";
    assert_eq!(count(&second, passes).await, 0);
    first.batch_execute("commit").await.unwrap();
    assert_eq!(count(&second, passes).await, 1);
    for to in ["consumer", "operator", "watcher", "neighbour"] {
        let stranger = role(&db, to).await;
        for gate in ["gate_rescue", "gate_fold", "gate_turn"] {
            let lock = format!("do $$ begin lock table integration.{gate} in share mode nowait; end $$");
            let locked = super::answer(&stranger, &lock).await;
            assert_eq!(locked, "42501", "{to} {gate}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_says_who_rewrote_a_message_under_which_name_he_logged_in_and_acted() {
    let db = Database::new().await;
    let client = db.client().await;
    db.broker().await.producer("shop").publish(&message("billing", 1)).await.unwrap();
    let consumer = role(&db, "consumer").await;
    let group = format!("group_{}", db.name());
    client
        .batch_execute(&format!(
            "create role {group}; select integration.grant_to('{group}', 'consume'); grant {group} to consumer_{}",
            db.name()
        ))
        .await
        .unwrap();
    let rewrite = "update integration.data_staging set data = '2', target_app = 'mailer'";
    consumer.batch_execute(&format!("set role {group}; {rewrite}; reset role")).await.unwrap();
    // What stays as it was is no event.
    consumer.batch_execute(rewrite).await.unwrap();
    let sql = "select role_name, (details - 'data_sha256')::text from integration.audit_log where action = 'rewritten'";
    let rows = client.query(sql, &[]).await.unwrap();
    let told: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let details = "{\"columns\": [\"data\", \"target_app\"], \"target_app\": \"billing\"}".to_owned();
    assert_eq!(told, [(format!("consumer_{} as {group}", db.name()), details)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_notification_queue_is_half_full_nothing_rings_and_every_publish_succeeds() {
    let Some(bin_directory) = newer::postgres_17().await else { return };
    let settings = vec![("max_notify_queue_pages".to_owned(), "64".to_owned())];
    let options = EphemeralOptions { settings, bin_directory: Some(bin_directory), ..Default::default() };
    let server = Server::ephemeral(options).await.unwrap();
    let db = Database { url: server.connection_string("postgres") };
    let broker = db.broker().await;
    broker.migrate().await.unwrap();
    let producer = broker.producer("shop");
    let mut ear = Ear::on(&db, &["billing"]).await;
    let client = db.client().await;
    let bell = channel(&client, "billing").await;
    producer.publish(&message("billing", 1)).await.unwrap();
    assert_eq!(ear.heard().await, std::slice::from_ref(&bell));

    let deaf = connect(&db.url).await;
    // Two statements: sent as one, the LISTEN is part of the transaction, and nobody keeps the queue from being read.
    deaf.batch_execute("listen deaf").await.unwrap();
    deaf.batch_execute("begin").await.unwrap();
    let half = "select (pg_notification_queue_usage() >= 0.5)::integer::bigint";
    while count(&client, half).await == 0 {
        client.batch_execute("select pg_notify('deaf', repeat('x', 7900))").await.unwrap();
    }
    producer.publish(&message("billing", 2)).await.unwrap();
    producer.publish(&message("billing", 3).delay(std::time::Duration::from_secs(3600))).await.unwrap();
    producer.publish_many(&(0..100).map(|n| message("billing", n)).collect::<Vec<_>>()).await.unwrap();
    plain_insert(&client, "billing", "4").await;
    assert_eq!(ear.heard().await, [""; 0]);

    drop(deaf);
    until(&client, "the queue is read", "select pg_notification_queue_usage() < 0.5").await;
    producer.publish(&message("billing", 5)).await.unwrap();
    assert_eq!(ear.heard().await, [bell]);
    broker.close().await;
    server.stop().await.unwrap();
}
