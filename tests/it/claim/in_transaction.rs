//! In-transaction mode: locked instead of leased, and nothing of what leases promise is lost.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use doorbell::{Broker, ConsumerBuilder, ConsumerConfig, Delivery, HandlerResult, Outcome};
use futures::{FutureExt, future::BoxFuture};
use tokio::{process, sync::Semaphore};
use tokio_postgres::{Client, Transaction};

use crate::support::{
    Database, HOUR, bells_only, connect, count, message, plain_insert, row, seen, soon, until, until_count,
    until_status,
};

const SWEEP: Option<Duration> = Some(Duration::from_millis(100));
const LEDGER: &str = "create table ledger (message_id bigint primary key)";

/// Set in the processes that a test starts from its own program: the database to consume from.
const CHILD: &str = "DOORBELL_TEST_HOLDER";

fn holder_process(db: &Database) -> process::Child {
    let mut command = process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "claim::in_transaction::child"]).env(CHILD, &db.url);
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

/// Not a test of its own: what the processes started by the tests below do.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let broker = Broker::connect(&url).await.unwrap();
    let config = ConsumerConfig {
        in_transaction: Some(Duration::from_secs(30)),
        tx_batch: 10,
        sweep: SWEEP,
        ..Default::default()
    };
    let consumer = consumer(&broker, config).on_tx("n", |word: String, delivery, tx| {
        async move {
            tx.execute("insert into ledger values ($1)", &[&delivery.id]).await?;
            match word.as_str() {
                "abort" => std::process::abort(),
                "hang" => std::future::pending().await,
                _ => Ok(Outcome::Done),
            }
        }
        .boxed()
    });
    consumer.run_until(std::future::pending()).await.unwrap();
}

/// Publishes probes until one was completed without having been leased: the consumer's process is old enough.
async fn until_it_holds(client: &Client) {
    let held = "select exists (select from integration.data_staging d where d.record_type = 'probe' and d.status = 'completed' \
            and not exists (select from integration.audit_log a where a.staging_id = d.id and a.action = 'claimed')) \
        or integration.publish('test', 'billing', 'probe', '0') is null";
    until(client, "the consumer holds messages", held).await;
    until(
        client,
        "all probes are done",
        "select not exists (select from integration.data_staging where status <> 'completed')",
    )
    .await;
    client.batch_execute("delete from integration.data_staging; truncate integration.audit_log").await.unwrap();
}

/// In the transaction that completes the message.
fn note<'a>(_: i64, delivery: Delivery, tx: &'a Transaction<'a>) -> BoxFuture<'a, HandlerResult> {
    async move {
        tx.execute("insert into ledger values ($1)", &[&delivery.id]).await?;
        Ok(Outcome::Done)
    }
    .boxed()
}

/// A consumer that [`until_it_holds`] can ask.
fn consumer(broker: &Broker, config: ConsumerConfig) -> ConsumerBuilder {
    broker.consumer("billing").config(config).on_tx("probe", |_: i64, _, _| async { Ok(Outcome::Done) }.boxed())
}

async fn ledger(db: &Database) -> Client {
    let client = db.client().await;
    client.execute("select integration.set_audit_level('all')", &[]).await.unwrap();
    client.batch_execute(LEDGER).await.unwrap();
    client.batch_execute("update integration.settings set backoff_base_ms = 0").await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_completed_without_having_been_leased() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    // In a stricter isolation batches fail because of each other now and then, and go the other way.
    let isolation = format!("alter database {} set default_transaction_isolation = 'read committed'", db.name());
    client.batch_execute(&isolation).await.unwrap();
    let broker = db.broker().await;
    let consumer = consumer(
        &broker,
        ConsumerConfig { tx_batch: 20, in_transaction: Some(Duration::from_secs(1)), ..bells_only() },
    )
    .on_tx("n", note);
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    let messages: Vec<_> = (0..500).map(|n| message("billing", n)).collect();
    let ids = broker.producer("shop").publish_many(&messages).await.unwrap();
    until_count(&client, "completed", 500).await;
    consumer.shutdown().await.unwrap();
    assert_eq!(count(&client, "select count(*) from ledger").await, 500);
    let done = row(&client, ids[0]).await;
    assert_eq!((done.attempt, done.owner), (1, None));
    let claimed = "select count(*) from integration.audit_log where action = 'claimed'";
    // Not one, unless a statement waited too long and its batch went the other way.
    assert!(count(&client, claimed).await <= 20);
    let told = "select count(*) from integration.audit_log a where action = 'completed' and old_status = 'pending' and attempt = 1 and owner is not null";
    assert!(count(&client, told).await >= 480);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_sql_passes_over_what_a_transaction_holds() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    let (gate, (tell, mut told)) = (Arc::new(Semaphore::new(0)), seen());
    let closed = gate.clone();
    let config = ConsumerConfig { in_transaction: Some(Duration::from_secs(60)), sweep: HOUR, ..Default::default() };
    let consumer = consumer(&broker, config).on_tx("n", move |_: i64, delivery, _| {
        let _ = tell.send(delivery.id);
        let gate = closed.clone();
        async move { Ok(gate.acquire().await.map(|_| Outcome::Done)?) }.boxed()
    });
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    // A statement that waits too long sends a batch the other way, with leases: then the next one.
    let id = loop {
        let id = plain_insert(&client, "billing", "1").await;
        told.next().await;
        if row(&client, id).await.status == "pending" {
            break id;
        }
        gate.add_permits(1);
        until_status(&client, id, "completed").await;
    };
    let claim = "update integration.data_staging set status = 'processing' where id in \
        (select id from integration.data_staging where target_app = 'billing' and status = 'pending' \
         order by priority desc, created_at limit 10 for update skip locked)";
    assert_eq!(client.execute(claim, &[]).await.unwrap(), 0);
    gate.add_permits(1);
    until_status(&client, id, "completed").await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_outlasts_the_cap_is_run_again_with_a_lease() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    let runs = Arc::new(AtomicI32::new(0));
    let counted = runs.clone();
    let config = ConsumerConfig { in_transaction: Some(Duration::from_millis(50)), sweep: HOUR, ..Default::default() };
    let consumer = consumer(&broker, config).on_tx("n", move |_: i64, delivery, tx| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            tx.execute("insert into ledger values ($1)", &[&delivery.id]).await?;
            if first {
                std::future::pending::<()>().await;
            }
            Ok(Outcome::Done)
        }
        .boxed()
    });
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    let id = plain_insert(&client, "billing", "1").await;
    let done = until_status(&client, id, "completed").await;
    consumer.shutdown().await.unwrap();
    assert_eq!((done.attempt, done.retry_count, runs.load(Ordering::SeqCst)), (1, 0, 2));
    assert_eq!(count(&client, "select count(*) from ledger").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cap_leaves_unbegun_is_taken_again_without_a_bell_or_a_sweep() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    let config = ConsumerConfig {
        in_transaction: Some(Duration::from_millis(100)),
        tx_batch: 50,
        sweep: HOUR,
        ..Default::default()
    };
    let consumer = consumer(&broker, config).on_tx("n", |_: i64, delivery, tx| {
        async move {
            // Some thirty milliseconds of the server's time.
            tx.batch_execute("select count(*) from generate_series(1, 300000)").await?;
            tx.execute("insert into ledger values ($1)", &[&delivery.id]).await?;
            Ok(Outcome::Done)
        }
        .boxed()
    });
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    let messages: Vec<_> = (0..12).map(|n| message("billing", n)).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    until_count(&client, "completed", 12).await;
    consumer.shutdown().await.unwrap();
    assert_eq!(count(&client, "select count(*) from ledger").await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_held_is_free_at_once_and_has_cost_nothing() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    let mut holder = holder_process(&db);
    until_it_holds(&client).await;
    let id = plain_insert(&client, "billing", "\"hang\"").await;
    let held =
        format!("select not exists (select from integration.data_staging where id = {id} for update skip locked)");
    until(&client, "a transaction holds the message", &held).await;
    holder.kill().await.unwrap();
    let free = format!("select exists (select from integration.data_staging where id = {id} for update skip locked)");
    until(&client, "the message is free", &free).await;
    let released = row(&client, id).await;
    assert_eq!((released.status.as_str(), released.attempt, released.crash_count), ("pending", 0, 0));
    assert_eq!(count(&client, "select count(*) from ledger").await, 0);
    // From now on, for a while, leases: whoever kills its consumers there is found.
    until(
        &client,
        "the death is noted",
        "select integration.rescue() >= 0 and exists (select from integration.targets where leases_until is not null)",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_that_kills_its_consumers_ends_as_failed_and_the_others_are_done() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    for n in 0..20 {
        plain_insert(&client, "billing", if n == 7 { "\"abort\"" } else { "\"well\"" }).await;
    }
    let ended = "select count(*) = 20 from integration.data_staging where status in ('completed', 'failed')";
    // A supervisor that starts a consumer again whenever one has died.
    let supervisor = async {
        loop {
            holder_process(&db).wait().await.unwrap();
        }
    };
    tokio::select! {
        () = supervisor => {}
        () = until(&client, "everything has ended", ended) => {}
    }
    let failed = "select id from integration.data_staging where status = 'failed' and error_message like '%consumers died%' and data = '\"abort\"'";
    assert_eq!(client.query(failed, &[]).await.unwrap().len(), 1);
    assert_eq!(count(&client, "select count(*) from ledger").await, 19);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_target_and_one_with_a_limit_are_respected() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    client.execute("select integration.pause('billing')", &[]).await.unwrap();
    let ids = [plain_insert(&client, "billing", "1").await, plain_insert(&client, "billing", "2").await];
    let (most, now) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicI32::new(0)));
    let (high, running) = (most.clone(), now.clone());
    let consumer = consumer(
        &broker,
        ConsumerConfig { tx_batch: 10, in_transaction: Some(Duration::from_secs(1)), ..bells_only() },
    )
    .on_tx("n", move |_: i64, _, tx| {
        let (high, running) = (high.clone(), running.clone());
        async move {
            high.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tx.batch_execute("select count(*) from generate_series(1, 10000)").await?;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(Outcome::Done)
        }
        .boxed()
    });
    let consumer = consumer.start().await.unwrap();
    // The consumer has parked, so it has looked, and found nothing.
    let parked = "select exists (select from pg_locks where locktype = 'advisory' and classid = integration.latch_class() and mode = 'ShareLock')";
    until(&client, "the consumer is parked", parked).await;
    assert_eq!(row(&client, ids[0]).await.status, "pending");
    client
        .batch_execute("update integration.targets set max_in_flight = 1 where target_app = 'billing'")
        .await
        .unwrap();
    client.execute("select integration.resume('billing')", &[]).await.unwrap();
    until_count(&client, "completed", 2).await;
    assert_eq!(most.load(Ordering::SeqCst), 1);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_the_session_leaves_the_effects_of_all_or_none() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    let consumer = consumer(
        &broker,
        ConsumerConfig {
            sweep: SWEEP,
            tx_batch: 50,
            in_transaction: Some(Duration::from_secs(1)),
            ..ConsumerConfig::default()
        },
    )
    .on_tx("n", note);
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    let messages: Vec<_> = (0..2000).map(|n| message("billing", n)).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    let admin = connect(&db.url).await;
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() \
        and pid <> pg_backend_pid() and state in ('active', 'idle in transaction') and query like '%ledger%'";
    soon("everything is completed", async {
        let done = "select count(*) from integration.data_staging where status = 'completed'";
        let mut killed = 0;
        while count(&client, done).await < 2000 {
            if killed < 10 {
                killed += count(&admin, kill).await;
            }
        }
        println!("{killed} sessions were ended");
    })
    .await;
    assert_eq!(count(&client, "select count(*) from ledger").await, 2000);
    consumer.shutdown().await.unwrap();
}
