//! Plain handlers of messages that a transaction holds: nothing is leased, and nobody notices but by the speed.

use std::{
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use doorbell::{Broker, BrokerConfig, ConsumerBuilder, ConsumerConfig, MessageId, Outcome};
use tokio::{process, sync::Semaphore};
use tokio_postgres::Client;

use crate::support::{
    Database, bells_only, count, message, plain_insert, row, seen, until, until_count, until_it_holds, until_status,
};

/// Set in the processes that a test starts from its own program: the database to consume from.
const CHILD: &str = "DOORBELL_TEST_PLAIN_HOLDER";

fn consumer(broker: &Broker, config: ConsumerConfig) -> ConsumerBuilder {
    broker.consumer("billing").config(config).on("probe", |_: i64, _| async { Ok(Outcome::Done) })
}

async fn audited(db: &Database) -> Client {
    let client = db.client().await;
    let prepare = "select integration.set_audit_level('all'); update integration.settings set backoff_base_ms = 0";
    client.batch_execute(prepare).await.unwrap();
    client
}

/// Not a test of its own: what the processes started by a test below do.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let broker = Broker::connect(&url).await.unwrap();
    let consumer = consumer(&broker, ConsumerConfig::default()).on("n", |word: String, _| async move {
        if word == "abort" {
            std::process::abort();
        }
        Ok(Outcome::Done)
    });
    consumer.run_until(std::future::pending()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_completed_without_having_been_leased_and_each_handler_runs_once() {
    let db = Database::new().await;
    let client = audited(&db).await;
    let broker = db.broker().await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let runs: Arc<Mutex<Vec<MessageId>>> = Arc::default();
    let (counted, noted) = ((running, most.clone()), runs.clone());
    let consumer = consumer(&broker, bells_only()).on("n", move |_: i64, delivery| {
        let (running, most) = counted.clone();
        let runs = noted.clone();
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Not ready at once.
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            runs.lock().unwrap().push(delivery.id);
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    let messages: Vec<_> = (0..500).map(|n| message("billing", n)).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    // A busy machine makes these handlers slow, and then they are leased.
    let held = "select exists (select from integration.audit_log where action = 'completed' and old_status = 'pending' \
        and attempt = 1 and owner is not null) or integration.publish('shop', 'billing', 'n', '1') is null";
    until(&client, "something was held", held).await;
    until(&client, "all is completed", "select integration.is_drained('billing')").await;
    consumer.shutdown().await.unwrap();
    let mut runs = std::mem::take(&mut *runs.lock().unwrap());
    let ids = client.query("select id from integration.data_staging order by id", &[]).await.unwrap();
    let ids: Vec<MessageId> = ids.iter().map(|row| row.get(0)).collect();
    runs.sort_unstable();
    assert_eq!(runs, ids);
    assert!(most.load(Ordering::SeqCst) <= ConsumerConfig::default().concurrency, "{most:?} ran at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_well_is_settled_for_itself_and_its_neighbours_are_done_once() {
    let db = Database::new().await;
    let client = audited(&db).await;
    let broker = db.broker().await;
    let (tell, mut told) = seen();
    let consumer = consumer(&broker, bells_only()).on("n", move |n: i64, delivery| {
        let _ = tell.send((n, delivery.attempt));
        async move {
            match (n % 10, delivery.attempt) {
                (1, 1) => Err("not now".into()),
                (2, _) => Ok(Outcome::reject("never")),
                (3, 1) => panic!("no"),
                (4, 1) => Ok(Outcome::snooze(std::time::Duration::from_millis(1))),
                _ => Ok(Outcome::Done),
            }
        }
    });
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    let messages: Vec<_> = (0..100).map(|n| message("billing", n)).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    until_count(&client, "completed", 90).await;
    until_count(&client, "failed", 10).await;
    consumer.shutdown().await.unwrap();
    let mut runs = told.take(130).await;
    runs.sort_unstable();
    let expected =
        (0..100).flat_map(|n| (1..=if [1, 3, 4].contains(&(n % 10)) { 2 } else { 1 }).map(move |run| (n, run)));
    assert_eq!(runs, expected.collect::<Vec<_>>());
    let rejected = "select count(*) from integration.data_staging where error_message = 'never' and attempt = 1";
    assert_eq!(count(&client, rejected).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_outlasts_the_transaction_goes_on_with_a_lease_and_runs_once() {
    let db = Database::new().await;
    let client = audited(&db).await;
    let broker = db.broker().await;
    let (gate, (tell, mut told)) = (Arc::new(Semaphore::new(0)), seen());
    let closed = gate.clone();
    let consumer = consumer(&broker, bells_only()).on("n", move |_: i64, delivery| {
        let _ = tell.send(delivery.attempt);
        let gate = closed.clone();
        async move { Ok(gate.acquire().await.map(|_| Outcome::Done)?) }
    });
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    let id = plain_insert(&client, "billing", "1").await;
    assert_eq!(told.next().await, 1);
    let leased = until_status(&client, id, "processing").await;
    assert!(leased.owner.is_some());
    gate.add_permits(1);
    let done = until_status(&client, id, "completed").await;
    consumer.shutdown().await.unwrap();
    assert_eq!((done.attempt, done.retry_count, told.rest().count()), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_connections_are_scarce_leases_are_used() {
    let db = Database::new().await;
    let client = audited(&db).await;
    let config = BrokerConfig { connections_max: 1, ..BrokerConfig::default() };
    let broker = db.broker_with(config).await;
    let plain = consumer(&broker, bells_only()).start().await.unwrap();
    let transactional = broker.consumer("ledger").config(bells_only());
    let transactional = transactional.on_tx("n", |_: i64, _, tx| {
        Box::pin(async move { Ok(tx.batch_execute("select 1").await.map(|()| Outcome::Done)?) })
    });
    let transactional = transactional.start().await.unwrap();
    let old = "select count(*) = 2 and bool_and(started_at < integration.clock() - interval '4 s') \
        from integration.processes cross join jsonb_object_keys(targets)";
    until(&client, "the process is old enough to hold messages", old).await;
    for n in 0..100 {
        client.execute("select integration.publish('test', 'billing', 'probe', '0')", &[]).await.unwrap();
        plain_insert(&client, "ledger", &n.to_string()).await;
    }
    until_count(&client, "completed", 200).await;
    let held = "select count(*) from integration.audit_log where action = 'completed' and old_status = 'pending'";
    assert_eq!(count(&client, held).await, 0);
    plain.shutdown().await.unwrap();
    transactional.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_that_kills_its_consumers_ends_as_failed_and_the_others_are_done() {
    let db = Database::new().await;
    let client = audited(&db).await;
    let start = || {
        let mut command = process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "claim::side_by_side::child"]).env(CHILD, &db.url);
        command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
    };
    let first = start();
    until_it_holds(&client).await;
    for n in 0..20 {
        plain_insert(&client, "billing", if n == 7 { "\"abort\"" } else { "\"well\"" }).await;
    }
    // A supervisor that starts a consumer again whenever one has died.
    let supervisor = async {
        let mut child = first;
        loop {
            child.wait().await.unwrap();
            child = start();
        }
    };
    let ended = "select count(*) = 20 from integration.data_staging where status in ('completed', 'failed')";
    tokio::select! {
        () = supervisor => {}
        () = until(&client, "everything has ended", ended) => {}
    }
    let failed = "select id from integration.data_staging where status = 'failed' and error_message like '%consumers died%' \
        and data = '\"abort\"'";
    let failed = client.query(failed, &[]).await.unwrap();
    assert_eq!(failed.len(), 1);
    assert_eq!(row(&client, failed[0].get(0)).await.crash_count, 3);
}
