//! Transactional handlers of messages that their transaction holds: how one of them ends costs its own message alone, and
//! nothing of what leases promise is lost.

mod killed;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use doorbell::{Broker, ConsumerBuilder, ConsumerConfig, Delivery, HandlerResult, Outcome};
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::Semaphore;
use tokio_postgres::{Client, Transaction};

use crate::support::{
    Database, bells_only, connect, count, message, plain_insert, row, seen, soon, until, until_count, until_it_holds,
    until_status,
};

const SWEEP: Option<Duration> = Some(Duration::from_millis(100));
const LEDGER: &str = "create table ledger (message_id bigint primary key)";

/// Handlers are short on any machine, however busy.
fn patient() -> ConsumerConfig {
    ConsumerConfig { hold: Some(Duration::from_secs(20)), ..bells_only() }
}

/// In the transaction that completes the message.
fn note<'a>(_: i64, delivery: Delivery, tx: &'a Transaction<'a>) -> BoxFuture<'a, HandlerResult> {
    async move {
        tx.execute("insert into ledger values ($1)", &[&delivery.id]).await?;
        Ok(Outcome::Done)
    }
    .boxed()
}

/// A consumer that `until_it_holds` can ask.
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
    let db = Database::read_committed().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    let consumer = consumer(&broker, patient()).on_tx("n", note).start().await.unwrap();
    until_it_holds(&client).await;
    let messages: Vec<_> = (0..500).map(|n| message("billing", n)).collect();
    let ids = broker.producer("shop").publish_many(&messages).await.unwrap();
    until_count(&client, "completed", 500).await;
    consumer.shutdown().await.unwrap();
    assert_eq!(count(&client, "select count(*) from ledger").await, 500);
    let done = row(&client, ids[0]).await;
    assert_eq!((done.attempt, done.owner), (1, None));
    // All of them, unless a statement waited too long, or handlers were slow, as on a busy machine.
    let told = "select count(*) from integration.audit_log a where action = 'completed' and old_status = 'pending' and attempt = 1 and owner is not null";
    assert!(count(&client, told).await > 0, "something was held");
}

/// Whatever was leased before, and however many always run because of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_held_as_soon_as_handlers_are_seen_to_be_short() {
    let db = Database::read_committed().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    // Makes the process old enough.
    let first = consumer(&broker, bells_only()).start().await.unwrap();
    until_it_holds(&client).await;
    first.shutdown().await.unwrap();
    let config = ConsumerConfig { prefetch: Some(500), ..bells_only() };
    // On a busy machine handlers are slow at first, or for long: then the next one.
    for round in 1.. {
        let messages: Vec<_> = (0..2000).map(|n| message("billing", n)).collect();
        broker.producer("shop").publish_many(&messages).await.unwrap();
        let second =
            self::consumer(&broker, config.clone()).on_tx("n", |_: i64, _, _| async { Ok(Outcome::Done) }.boxed());
        let second = second.start().await.unwrap();
        until_count(&client, "completed", 2000 * round).await;
        second.shutdown().await.unwrap();
        let leased = count(&client, "select count(*) from integration.audit_log where action = 'claimed'").await;
        if leased < 1000 {
            break;
        }
        assert!(round < 10, "{leased} of 2000 were leased");
        client.batch_execute("truncate integration.audit_log").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_sql_passes_over_what_a_transaction_holds() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    let (gate, (tell, mut told)) = (Arc::new(Semaphore::new(0)), seen());
    let closed = gate.clone();
    let config = ConsumerConfig { hold: Some(Duration::from_secs(60)), ..bells_only() };
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

/// Whether the handler's message is held, as its own transaction sees it.
async fn is_held(delivery: &Delivery, tx: &Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
    let status =
        tx.query_one("select status::text from integration.data_staging where id = $1", &[&delivery.id]).await?;
    Ok(status.get::<_, &str>(0) == "pending")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_outlasts_the_transaction_is_run_again_with_a_lease_and_its_neighbours_are_not() {
    let db = Database::read_committed().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    let keeper = db.client().await;
    keeper.batch_execute("create table door ()").await.unwrap();
    keeper.batch_execute("begin; lock table door").await.unwrap();
    let (tell, mut told) = seen();
    let config = ConsumerConfig { hold: Some(Duration::from_secs(1)), ..bells_only() };
    let consumer = consumer(&broker, config).on_tx("n", move |n: i64, delivery, tx| {
        let tell = tell.clone();
        async move {
            tx.execute("insert into ledger values ($1)", &[&delivery.id]).await?;
            let is_held = is_held(&delivery, tx).await?;
            let _ = tell.send((n, is_held));
            // In a statement, which has to end before its effects can be undone.
            if n == 3 && is_held {
                tx.batch_execute("lock table door").await?;
            }
            Ok(Outcome::Done)
        }
        .boxed()
    });
    let consumer = consumer.start().await.unwrap();
    // A statement that waits too long sends a batch the other way: then the next one.
    loop {
        until_it_holds(&client).await;
        client.batch_execute("truncate ledger").await.unwrap();
        let messages: Vec<_> = (0..7).map(|n| message("billing", n)).collect();
        let ids = broker.producer("shop").publish_many(&messages).await.unwrap();
        until_count(&client, "completed", 7).await;
        assert_eq!(count(&client, "select count(*) from ledger").await, 7);
        let slow = row(&client, ids[3]).await;
        assert_eq!((slow.attempt, slow.retry_count), (1, 0));
        let runs: Vec<_> = told.rest().collect();
        if runs[..4] == [(0, true), (1, true), (2, true), (3, true)] {
            assert_eq!(runs.iter().filter(|(n, _)| *n == 3).collect::<Vec<_>>(), [&(3, true), &(3, false)]);
            assert!((0..3).all(|n| runs.iter().filter(|run| run.0 == n).count() == 1), "{runs:?}");
            break;
        }
    }
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_well_is_undone_and_settled_for_itself_and_its_neighbours_are_done_once() {
    let db = Database::read_committed().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    let (tell, mut told) = seen();
    let consumer = consumer(&broker, patient()).on_tx("n", move |n: i64, delivery, tx| {
        let _ = tell.send((n, delivery.attempt));
        async move {
            if n % 10 == 7 {
                // Sends nothing.
                return Ok(Outcome::Done);
            }
            tx.execute("insert into ledger values ($1)", &[&delivery.id]).await?;
            match (n % 10, delivery.attempt) {
                (1, 1) => Err("not now".into()),
                (2, _) => Ok(Outcome::reject("never")),
                (3, 1) => panic!("no"),
                (4, 1) => Ok(Outcome::snooze(Duration::from_millis(1))),
                (5, 1) => Ok(tx.batch_execute("select 1 / 0").await.map(|()| Outcome::Done)?),
                // Says that all is well, and leaves a transaction that has failed.
                (6, 1) => Ok(tx.batch_execute("select 1 / 0").await.map_or(Outcome::Done, |()| Outcome::Done)),
                _ => Ok(Outcome::Done),
            }
        }
        .boxed()
    });
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    let messages: Vec<_> = (0..100).map(|n| message("billing", n)).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    until_count(&client, "completed", 90).await;
    until_count(&client, "failed", 10).await;
    consumer.shutdown().await.unwrap();
    let mut runs: Vec<_> = told.rest().collect();
    runs.sort_unstable();
    // The first that sends something, or takes as long, after a transaction was left that had failed is run once more.
    runs.dedup_by(|a, b| a == b && [7, 8].contains(&(a.0 % 10)));
    let again = |n: i64| if [1, 3, 4, 5, 6].contains(&(n % 10)) { 2 } else { 1 };
    let expected = (0..100).flat_map(|n| (1..=again(n)).map(move |run| (n, run)));
    assert_eq!(runs, expected.collect::<Vec<_>>());
    let wrong = "select count(*) from integration.data_staging d left join ledger l on l.message_id = d.id \
        where (d.status = 'completed' and d.data::text::int % 10 <> 7) is distinct from (l.message_id is not null)";
    assert_eq!(count(&client, wrong).await, 0);
    let held = "select count(*) from integration.audit_log where action = 'completed' and old_status = 'pending'";
    assert!(count(&client, held).await > 0, "something was held");
    let told = "select count(*) from integration.data_staging where retry_count = 1 and status = 'completed'";
    assert_eq!(count(&client, told).await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_times_out_is_retried_and_its_neighbours_are_done() {
    let db = Database::read_committed().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    let config = ConsumerConfig { handler_timeout: Some(Duration::from_secs(2)), ..patient() };
    let consumer = consumer(&broker, config).on_tx("n", |n: i64, delivery, tx| {
        async move {
            if n == 3 {
                tx.execute("insert into ledger values ($1)", &[&delivery.id]).await?;
                if delivery.attempt == 1 {
                    std::future::pending::<()>().await;
                }
            }
            Ok(Outcome::Done)
        }
        .boxed()
    });
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    let messages: Vec<_> = (0..7).map(|n| message("billing", n)).collect();
    let ids = broker.producer("shop").publish_many(&messages).await.unwrap();
    until_count(&client, "completed", 7).await;
    consumer.shutdown().await.unwrap();
    let slow = row(&client, ids[3]).await;
    assert_eq!((slow.attempt, slow.retry_count), (2, 1));
    assert_eq!(count(&client, "select count(*) from integration.data_staging where attempt = 1").await, 6);
    assert_eq!(count(&client, "select count(*) from ledger").await, 1);
}

/// Ready at once, and yet not without effect.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_does_that_blocks_its_thread_is_not_undone_because_of_another() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    let consumer = consumer(&broker, patient()).on_tx("n", |n: i64, delivery, tx| {
        async move {
            if n % 2 == 0 {
                let blocking = || tokio::runtime::Handle::current().block_on(note(n, delivery, tx));
                return tokio::task::block_in_place(blocking);
            }
            tx.execute("insert into ledger values ($1)", &[&delivery.id]).await?;
            Ok(Outcome::reject("odd"))
        }
        .boxed()
    });
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    let messages: Vec<_> = (0..20).map(|n| message("billing", n)).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    until_count(&client, "completed", 10).await;
    until_count(&client, "failed", 10).await;
    consumer.shutdown().await.unwrap();
    let wrong = "select count(*) from integration.data_staging d left join ledger l on l.message_id = d.id \
        where (d.status = 'completed') is distinct from (l.message_id is not null)";
    assert_eq!(count(&client, wrong).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_and_transactional_handlers_of_a_consumer_are_held_alike() {
    let db = Database::read_committed().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    let consumer = consumer(&broker, patient()).on_tx("n", note).on("plain", |n: i64, _| async move {
        tokio::task::yield_now().await;
        Ok(if n % 10 == 3 { Outcome::reject("a third") } else { Outcome::Done })
    });
    let consumer = consumer.start().await.unwrap();
    until_it_holds(&client).await;
    for n in 0..100 {
        let record_type = if n % 2 == 0 { "n" } else { "plain" };
        let published = "select integration.publish('shop', 'billing', $1::text, to_jsonb($2::int))";
        client.execute(published, &[&record_type, &n]).await.unwrap();
    }
    until_count(&client, "completed", 90).await;
    until_count(&client, "failed", 10).await;
    consumer.shutdown().await.unwrap();
    assert_eq!(count(&client, "select count(*) from ledger").await, 50);
    let held = "select count(distinct d.record_type) from integration.data_staging d \
        join integration.audit_log a on a.staging_id = d.id and a.action = 'completed' and a.old_status = 'pending'";
    assert_eq!(count(&client, held).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cap_leaves_unbegun_is_taken_again_without_a_bell_or_a_sweep() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    // As by default.
    let config = ConsumerConfig { hold: Some(Duration::from_millis(100)), ..bells_only() };
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
async fn a_paused_target_and_one_with_a_limit_are_respected() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    let broker = db.broker().await;
    client.execute("select integration.pause('billing')", &[]).await.unwrap();
    let ids = [plain_insert(&client, "billing", "1").await, plain_insert(&client, "billing", "2").await];
    let (most, now) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicI32::new(0)));
    let (high, running) = (most.clone(), now.clone());
    let consumer = consumer(&broker, patient()).on_tx("n", move |_: i64, _, tx| {
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
    let consumer = consumer(&broker, ConsumerConfig { sweep: SWEEP, ..patient() }).on_tx("n", note);
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
