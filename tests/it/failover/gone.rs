//! Messages that the server does not know any more while their handlers run, found out by a process that never saw its
//! server away: the failover came between two of its beats, and no call of it failed.

use doorbell::{Broker, Consumer, ConsumerConfig, Outcome};
use tokio::sync::mpsc::UnboundedSender;
use tokio_postgres::Client;

use super::{all_have_looked_around, broker, pace};
use crate::support::{Database, HOUR, Seen, plain_insert, seen, soon, until_count, until_status};

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Begun(i64),
    Cancelled(i64),
}

/// A handler that never ends by itself.
struct Running(i64, UnboundedSender<Said>);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.1.send(Said::Cancelled(self.0));
    }
}

async fn consumer(broker: &Broker, config: ConsumerConfig) -> (Consumer, Seen<Said>) {
    let (tell, told) = seen();
    let config = ConsumerConfig { handler_timeout: None, drain_timeout: HOUR.expect("an hour"), ..config };
    let consumer = broker.consumer("billing").config(config).fallback(move |delivery| {
        let running = Running(delivery.id, tell.clone());
        async move {
            let _ = running.1.send(Said::Begun(running.0));
            std::future::pending::<()>().await;
            Ok(Outcome::Done)
        }
    });
    (consumer.start().await.unwrap(), told)
}

/// Does to a row what no client can do.
async fn behind_the_triggers(client: &Client, statement: &str) {
    let sql = format!("begin; set local session_replication_role = replica; {statement}; commit");
    client.batch_execute(&sql).await.unwrap();
}

/// The message was never there; every session is a new one.
async fn forget(client: &Client, id: i64) {
    behind_the_triggers(client, &format!("delete from integration.data_staging where id = {id}")).await;
    let others = "select pg_terminate_backend(pid) from pg_stat_activity \
        where datname = current_database() and pid <> pg_backend_pid()";
    client.batch_execute(others).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_meets_another_session_asks_which_of_its_messages_still_exist() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = broker(&db.url).await;
    let (consumer, mut told) = consumer(&broker, ConsumerConfig { sweep: HOUR, ..Default::default() }).await;
    let kept = plain_insert(&client, "billing", "1").await;
    assert_eq!(told.next().await, Said::Begun(kept));
    let forgotten = plain_insert(&client, "billing", "2").await;
    assert_eq!(told.next().await, Said::Begun(forgotten));
    all_have_looked_around(&client, 1).await;
    forget(&client, forgotten).await;
    assert_eq!(told.next().await, Said::Cancelled(forgotten));
    // It goes on with the others, and with what comes.
    let next = plain_insert(&client, "billing", "3").await;
    assert_eq!(told.next().await, Said::Begun(next));
    let row = until_status(&client, kept, "processing").await;
    assert_eq!((row.attempt, row.crash_count), (1, 0));
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_the_server_does_not_know_any_more_is_cancelled_and_the_next_one_runs() {
    let db = Database::new().await;
    let client = db.client().await;
    let first = plain_insert(&client, "billing", "1").await;
    let second = plain_insert(&client, "billing", "2").await;
    behind_the_triggers(&client, "update integration.data_staging set crash_count = 1").await;
    let broker = broker(&db.url).await;
    let (consumer, mut told) =
        consumer(&broker, ConsumerConfig { sweep: Some(pace::SWEEP), ..Default::default() }).await;
    assert_eq!(told.next().await, Said::Begun(first));
    all_have_looked_around(&client, 1).await;
    forget(&client, first).await;
    assert_eq!(told.next().await, Said::Cancelled(first));
    assert_eq!(told.next().await, Said::Begun(second));
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_stops_does_not_wait_for_the_handler_of_a_message_that_is_gone() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = broker(&db.url).await;
    let config = ConsumerConfig { concurrency: 1, prefetch: Some(1), sweep: HOUR, ..Default::default() };
    let (consumer, mut told) = consumer(&broker, config).await;
    let running = plain_insert(&client, "billing", "1").await;
    let waiting = plain_insert(&client, "billing", "2").await;
    assert_eq!(told.next().await, Said::Begun(running));
    until_count(&client, "processing", 2).await;
    all_have_looked_around(&client, 1).await;
    let stopping = tokio::spawn(consumer.shutdown());
    // It stops: what did not begin is given back.
    until_status(&client, waiting, "pending").await;
    forget(&client, running).await;
    assert_eq!(told.next().await, Said::Cancelled(running));
    soon("the consumer ends", stopping).await.unwrap().unwrap();
}
