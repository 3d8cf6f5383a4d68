//! Copies of a queue that is being worked on: complete, and nobody's but their own.

use doorbell::{Outcome, doctor::Level};
use doorbell_server::{EphemeralOptions, Server};
use tokio::sync::watch;

use crate::{
    doors::restored::copied,
    support::{
        Database, bells_only, count, echo, message, newer, plain_insert, row, seen, until, until_count, until_status,
    },
};

/// What a copy is asked: who has the message, what the doctor takes for broken, and whether everything is handled.
async fn is_worked_on(copy: &Database, in_hand: i64, messages: usize) {
    let client = copy.client().await;
    let explained = format!("select code from integration.explain({in_hand}) limit 1");
    let code: String = client.query_one(&explained, &[]).await.unwrap().get(0);
    // Of another server: until the lease is over, nothing says that it does not live.
    assert!(["owner_dead", "processing"].contains(&code.as_str()), "{code}");
    let broker = copy.broker().await;
    assert!(broker.migrate().await.unwrap().applied.is_empty());
    let report = broker.operator().doctor(&Default::default()).await.unwrap();
    let ill = report.findings.iter().find(|ill| ill.check == "drift" && ill.level == Level::Problem);
    assert!(ill.is_none(), "{ill:?}");
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    let (consumer, mut told) = echo(&broker, "billing").await;
    // What is published there gets an id that nobody has.
    broker.producer("shop").publish(&message("billing", 1)).await.unwrap();
    until_count(&client, "completed", messages + 1).await;
    assert!(told.take(messages + 1).await.iter().any(|delivery| delivery.id == in_hand && delivery.attempt == 2));
    consumer.shutdown().await.unwrap();
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_queue_is_worked_on_beside_it_and_the_queue_notices_nothing() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let (go, going) = watch::channel(false);
    let (tell, mut told) = seen();
    let consumer = broker.consumer("billing").config(bells_only()).fallback(move |delivery| {
        let _ = tell.send(delivery.id);
        let mut going = going.clone();
        async move { Ok(going.wait_for(|&go| go).await.map(|_| Outcome::Done)?) }
    });
    let consumer = consumer.start().await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    assert_eq!(told.next().await, id);
    until_status(&client, id, "processing").await;
    client.execute("select integration.pause('billing')", &[]).await.unwrap();
    for n in 0..20 {
        plain_insert(&client, "billing", &n.to_string()).await;
    }
    client.execute("select integration.publish('shop', 'billing', 'n', '1', p_delay => '1 us')", &[]).await.unwrap();

    let copy = Database::empty().await;
    if copied(&db, &copy, false).is_none() {
        return;
    }
    let there = copy.client().await;
    // The session lock of who has it is of the other database, in which it lives.
    let dead = format!("select exists (select from integration.explain({id}) where code = 'owner_dead')");
    until(&there, "the copy has nobody who handles it", &dead).await;
    there.execute("select integration.resume('billing')", &[]).await.unwrap();
    is_worked_on(&copy, id, 22).await;
    if let Some(bin_directory) = newer::postgres_17().await {
        let options = EphemeralOptions { bin_directory: Some(bin_directory), ..EphemeralOptions::default() };
        let server = Server::ephemeral(options).await.unwrap();
        let newer = Database { url: server.connection_string("postgres") };
        copied(&db, &newer, false);
        newer.client().await.execute("select integration.resume('billing')", &[]).await.unwrap();
        is_worked_on(&newer, id, 22).await;
        server.stop().await.unwrap();
    }

    let here = row(&client, id).await;
    assert_eq!((here.status.as_str(), here.attempt, here.crash_count), ("processing", 1, 0));
    go.send_replace(true);
    client.execute("select integration.resume('billing')", &[]).await.unwrap();
    until_count(&client, "completed", 22).await;
    assert_eq!(row(&client, id).await.attempt, 1);
    consumer.shutdown().await.unwrap();
}
