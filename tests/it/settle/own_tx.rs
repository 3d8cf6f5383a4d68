//! Publishing, effects and completion in transactions of other drivers: here a tokio-postgres that we do not pool. What
//! SQLx, Diesel and SeaORM do with the same statements is tested in `examples/drivers`.

use std::sync::Arc;

use doorbell::{ConsumerConfig, Message, Outcome, Statement};
use tokio_postgres::Client;

use crate::support::{Database, bells_only, connect, count, message, row, seen, until_status};

async fn run(client: &impl tokio_postgres::GenericClient, statement: &Statement) -> Result<i64, tokio_postgres::Error> {
    Ok(client.query_one(statement.sql(), &[&statement.value()]).await?.get(0))
}

async fn complete(tx: &tokio_postgres::Transaction<'_>, completion: &Statement) -> Result<u64, tokio_postgres::Error> {
    tx.execute(completion.sql(), &[&completion.value()]).await
}

async fn effects(client: &Client) -> i64 {
    count(client, "select count(*) from effects").await
}

async fn with_effects() -> (Database, Client) {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("create table effects (n bigint)").await.unwrap();
    (db, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_publishes_all_that_a_message_says_in_the_transaction_it_runs_in() {
    let db = Database::new().await;
    let (mut client, other) = (db.client().await, db.client().await);
    let full = message("billing", 7)
        .priority(3)
        .header("a", "b")
        .ordering_key("o")
        .dedup_key("d")
        .max_retries(9)
        .delay(std::time::Duration::from_secs(3600));
    let statement = full.statement("shop").unwrap();
    let tx = client.transaction().await.unwrap();
    run(&tx, &statement).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(count(&other, "select count(*) from integration.data_staging").await, 0);
    let tx = client.transaction().await.unwrap();
    let id = run(&tx, &statement).await.unwrap();
    assert_eq!(run(&tx, &statement).await.unwrap(), id, "the same key is the same message");
    tx.commit().await.unwrap();
    let twin = db.broker().await.producer("shop").publish(&full.clone().dedup_key("e")).await.unwrap();
    let same = format!(
        "select count(distinct (to_jsonb(d) - '{{id,created_at,updated_at,available_at,dedup_key}}'::text[])) \
         from integration.data_staging d where id in ({id}, {twin})"
    );
    assert_eq!(count(&other, &same).await, 1, "what publish makes of it");
    let raw = db.broker().await.producer("shop").statement(&Message::new("billing", "n", &()).unwrap()).unwrap();
    run(&other, &raw).await.unwrap();
    assert_eq!(
        count(&other, "select count(*) from integration.data_staging where data = 'null' and headers is null").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_and_completion_commit_together_and_the_message_is_settled() {
    let (db, client) = with_effects().await;
    let url = db.url.clone();
    let config = ConsumerConfig { hold: Some(std::time::Duration::from_secs(60)), ..bells_only() };
    let consumer = db.broker().await.consumer("billing").on_own_tx("n", move |n: i64, delivery, completion| {
        let url = url.clone();
        async move {
            let mut own = connect(&url).await;
            let tx = own.transaction().await?;
            tx.execute("insert into effects values ($1)", &[&n]).await?;
            complete(&tx, &completion).await?;
            if delivery.attempt == 1 && n == 2 {
                tx.rollback().await?;
                return Ok(Outcome::retry_after(std::time::Duration::ZERO, "not yet"));
            }
            tx.commit().await?;
            Ok(Outcome::Settled)
        }
    });
    let consumer = consumer.config(config).start().await.unwrap();
    let producer = db.broker().await.producer("shop");
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(producer.publish(&message("billing", n)).await.unwrap());
    }
    for id in &ids {
        until_status(&client, *id, "completed").await;
    }
    consumer.shutdown().await.unwrap();
    assert_eq!(effects(&client).await, 20);
    assert_eq!(count(&client, "select count(distinct n) from effects").await, 20);
    assert_eq!(row(&client, ids[2]).await.retry_count, 1);
    assert_eq!(count(&client, "select sum(retry_count) from integration.data_staging").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_says_settled_and_did_not_complete_has_its_message_retried_with_that_reason() {
    let (db, client) = with_effects().await;
    let consumer = db.broker().await.consumer("billing").config(bells_only());
    let consumer = consumer.on_own_tx("n", |_: i64, _, _| async { Ok(Outcome::Settled) });
    let consumer = consumer.start().await.unwrap();
    let id = db.broker().await.producer("shop").publish(&message("billing", 1).max_retries(0)).await.unwrap();
    let failed = until_status(&client, id, "failed").await;
    assert!(failed.reason().contains("Settled"), "{}", failed.reason());
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_whose_lease_is_lost_cannot_commit_its_effects() {
    let (db, client) = with_effects().await;
    let (tell, mut told) = seen();
    let (go, going) = tokio::sync::watch::channel(false);
    let url = db.url.clone();
    let consumer = db.broker().await.consumer("billing").config(bells_only());
    let consumer = consumer.on_own_tx("n", move |n: i64, delivery, completion: Statement| {
        let (url, tell, mut going) = (url.clone(), tell.clone(), going.clone());
        // A task of its own: the consumer stops the handler as soon as it hears that the message is not its own.
        let working = tokio::spawn(async move {
            tell.send(Ok(delivery.attempt)).unwrap();
            going.wait_for(|&go| go).await.unwrap();
            let mut own = connect(&url).await;
            let tx = own.transaction().await.unwrap();
            tx.execute("insert into effects values ($1)", &[&n]).await.unwrap();
            tell.send(
                complete(&tx, &completion).await.map(|_| 0).map_err(|error| error.code().unwrap().code().to_owned()),
            )
            .unwrap();
        });
        async move {
            working.await?;
            Ok(Outcome::retry("it lost its lease"))
        }
    });
    let consumer = consumer.start().await.unwrap();
    let id = db.broker().await.producer("shop").publish(&message("billing", 1)).await.unwrap();
    assert_eq!(told.next().await, Ok(1));
    client.execute("update integration.data_staging set status = 'cancelled' where id = $1", &[&id]).await.unwrap();
    go.send_replace(true);
    assert_eq!(told.next().await, Err("MQ001".to_owned()));
    consumer.shutdown().await.unwrap();
    assert_eq!(effects(&client).await, 0);
    assert_eq!(row(&client, id).await.status, "cancelled");
}

/// The handler does not know whether its commit happened and says that it failed, while the commit is still to come.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_comes_after_its_handler_gave_up_wins_over_the_retry() {
    let (db, client) = with_effects().await;
    let (tell, mut told) = seen();
    let consumer = db.broker().await.consumer("billing").config(bells_only());
    let url = db.url.clone();
    let consumer = consumer.on_own_tx("n", move |n: i64, _, completion: Statement| {
        let (url, tell) = (url.clone(), tell.clone());
        async move {
            let own = Arc::new(connect(&url).await);
            own.batch_execute("begin").await?;
            own.execute("insert into effects values ($1)", &[&n]).await?;
            own.execute(completion.sql(), &[&completion.value()]).await?;
            tell.send(own).unwrap();
            Err("the connection ended during the commit".into())
        }
    });
    let consumer = consumer.start().await.unwrap();
    let id = db.broker().await.producer("shop").publish(&message("billing", 1)).await.unwrap();
    let own = told.next().await;
    // The retry waits for the row, is owed to the database, or has not begun: whichever, it must find the commit.
    own.batch_execute("commit").await.unwrap();
    until_status(&client, id, "completed").await;
    consumer.shutdown().await.unwrap();
    let settled = row(&client, id).await;
    assert_eq!((&*settled.status, settled.retry_count, effects(&client).await), ("completed", 0, 1));
}
