//! Leases: what a dead consumer held is handled by others, and what a lost one says comes too late.

use std::{process::Stdio, time::Duration};

use doorbell::{BrokerConfig, ConsumerConfig, Outcome};
use tokio::{process, sync::watch};

use crate::support::{
    Database, bells_only, count, echo, message, plain_insert, row, seen, soon, until, until_count, until_status,
};

/// Set in the processes that a test starts from its own program: the database to consume from.
const CHILD: &str = "DOORBELL_TEST_CONSUMER";

/// Starts this program again as a consumer of `billing`; it is killed when this is dropped.
fn consumer_process(db: &Database) -> process::Child {
    let mut command = process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "claim::leases::child"]).env(CHILD, &db.url);
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

/// Not a test of its own: what the processes started by the tests below do.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let broker = doorbell::Broker::connect(&url).await.unwrap();
    let consumer = broker
        .consumer("billing")
        .config(ConsumerConfig { sweep: Some(Duration::from_millis(100)), ..ConsumerConfig::default() })
        .fallback(|delivery| async move {
            match delivery.payload() {
                "\"abort\"" => std::process::abort(),
                "\"hang\"" => std::future::pending().await,
                _ => Ok(Outcome::Done),
            }
        });
    consumer.run_until(std::future::pending()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_held_is_handled_by_another_and_costs_no_retry() {
    let db = Database::new().await;
    let client = db.client().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(plain_insert(&client, "billing", "\"hang\"").await);
    }
    let mut killed = consumer_process(&db);
    until_count(&client, "processing", 5).await;
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    killed.kill().await.unwrap();
    let mut handled: Vec<i64> = told.take(5).await.iter().map(|delivery| delivery.id).collect();
    handled.sort_unstable();
    assert_eq!(handled, ids);
    for id in ids {
        let completed = until_status(&client, id, "completed").await;
        assert_eq!((completed.attempt, completed.crash_count, completed.retry_count), (2, 0, 0));
        assert_eq!(crashes(&client, id).await, 1);
    }
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kills_three_processes_is_failed_and_its_neighbours_complete() {
    let db = Database::new().await;
    let client = db.client().await;
    let mut neighbours = Vec::new();
    for _ in 0..3 {
        neighbours.push(plain_insert(&client, "billing", "1").await);
    }
    let killer = plain_insert(&client, "billing", "\"abort\"").await;
    for _ in 0..3 {
        neighbours.push(plain_insert(&client, "billing", "1").await);
    }
    for _ in 0..3 {
        let status = soon("the consumer dies", consumer_process(&db).wait()).await.unwrap();
        assert!(!status.success());
    }
    let _last = consumer_process(&db);
    let failed = until_status(&client, killer, "failed").await;
    assert_eq!((failed.attempt, failed.crash_count, failed.retry_count), (3, 3, 0));
    assert_eq!(failed.reason(), "3 consumers died one after the other while handling this message");
    for id in neighbours {
        let completed = until_status(&client, id, "completed").await;
        assert!(completed.crash_count <= 1, "{completed:?}");
    }
}

/// How often the message was rescued from a dead consumer; cleared in the message itself once it survives.
async fn crashes(client: &tokio_postgres::Client, id: i64) -> i64 {
    let rescues = "select count(*) from integration.audit_log where action = 'rescued' and staging_id =";
    count(client, &format!("{rescues} {id}")).await
}

/// Says when it is dropped.
struct Guard(tokio::sync::mpsc::UnboundedSender<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_declared_dead_stops_its_handlers_and_starts_over() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let (tell, mut told) = seen();
    let consumer = broker.consumer("billing").config(bells_only()).fallback(move |delivery| {
        let guard = Guard(tell.clone());
        async move {
            guard.0.send("running")?;
            if delivery.attempt == 1 {
                std::future::pending::<()>().await;
            }
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    assert_eq!(told.next().await, "running");
    let before = broker.operator().processes().await.unwrap().remove(0).owner;
    client.execute("delete from integration.processes", &[]).await.unwrap();
    assert_eq!(told.next().await, "dropped");
    assert_eq!(told.next().await, "running");
    let completed = until_status(&client, id, "completed").await;
    assert_eq!((completed.attempt, completed.crash_count, completed.retry_count), (2, 0, 0));
    assert_eq!(crashes(&client, id).await, 1);
    let after = broker.operator().processes().await.unwrap();
    assert_eq!(after.len(), 1);
    assert_ne!(after[0].owner, before);
    // It is rung for and claims as before.
    let next = plain_insert(&client, "billing", "2").await;
    client.execute("update integration.data_staging set attempt = 5 where id = $1", &[&next]).await.unwrap();
    until(&client, "the next one ran", &format!("select attempt > 0 from integration.data_staging where id = {next}"))
        .await;
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_consumer_says_in_the_end_changes_nothing() {
    let db = Database::new().await;
    let client = db.client().await;
    // A heartbeat so slow that the process does not learn of its loss.
    let config =
        BrokerConfig { lease: Duration::from_secs(1000), beat: Duration::from_secs(300), ..Default::default() };
    let broker = db.broker_with(config).await;
    let (tell, mut told) = seen();
    let (go, going) = watch::channel(false);
    let consumer = broker.consumer("billing").config(bells_only()).fallback(move |delivery| {
        tell.send(delivery.id).unwrap();
        let mut going = going.clone();
        async move {
            going.wait_for(|&go| go).await?;
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    assert_eq!(told.next().await, id);
    client.execute("delete from integration.processes", &[]).await.unwrap();
    client.execute("select integration.rescue()", &[]).await.unwrap();
    assert_eq!(row(&client, id).await.status, "pending");
    go.send_replace(true);
    soon("the consumer stops", consumer.shutdown()).await.unwrap();
    let unchanged = row(&client, id).await;
    assert_eq!((&*unchanged.status, unchanged.attempt, unchanged.crash_count), ("pending", 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_claim_ends_with_its_own_lease() {
    let db = Database::new().await;
    let client = db.client().await;
    let id = db.broker().await.producer("shop").publish(&message("billing", 1)).await.unwrap();
    let claim = "select integration.claim('billing', 'script', p_lease => interval '-1 second')";
    client.execute(claim, &[]).await.unwrap();
    assert_eq!(row(&client, id).await.owner.as_deref(), Some("script"));
    client.execute("select integration.rescue()", &[]).await.unwrap();
    let rescued = row(&client, id).await;
    assert_eq!((&*rescued.status, rescued.crash_count, rescued.owner), ("pending", 1, None));
    let late = client.execute("select integration.complete($1, 1, 'script')", &[&id]).await.unwrap_err();
    assert_eq!(late.code().unwrap().code(), "MQ001");
}
