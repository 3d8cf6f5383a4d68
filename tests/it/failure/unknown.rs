//! Unknown outcomes: the connection ends after a statement was sent and before its answer came. Nothing is done twice,
//! nothing is reported lost that was not, and nothing that may be committing is ever cancelled.

mod batches;
mod publishes;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorbell::{Broker, BrokerConfig, Consumer, ConsumerConfig, ErrorKind, Message, Outcome, Settings};
use futures::FutureExt;
use tokio_postgres::Client;

use crate::{
    logs::Logs,
    proxy::{Cut, Proxy},
    support::{Database, bells_only, count, plain_insert, seen, until, until_it_holds},
};

const LEDGER: &str = "create table ledger (message_id bigint, attempt int)";
const HOUR: Duration = Duration::from_secs(3600);

/// A database, a way through the proxy to it, and a client that goes around the proxy.
struct Lab {
    proxy: Proxy,
    client: Client,
    broker: Broker,
}

impl Lab {
    async fn new() -> Self {
        Self::with(BrokerConfig::default()).await
    }

    async fn with(config: BrokerConfig) -> Self {
        let db = Database::new().await;
        let client = db.client().await;
        client.batch_execute(LEDGER).await.unwrap();
        let proxy = Proxy::to(&db.url).await;
        let broker = through(&proxy, config).await;
        Self { proxy, client, broker }
    }

    async fn count(&self, what: &str) -> i64 {
        count(&self.client, &format!("select count(*) from {what}")).await
    }

    async fn until(&self, what: &str, condition: &str) {
        let query = format!("select exists (select from integration.data_staging where {condition})");
        until(&self.client, what, &query).await;
    }
}

/// Beats once an hour, so that every statement that is seen belongs to the test.
async fn through(proxy: &Proxy, config: BrokerConfig) -> Broker {
    let config = BrokerConfig { lease: HOUR * 4, beat: HOUR, ..config };
    Broker::with_config(Settings::parse(&proxy.url).unwrap(), config).await.unwrap()
}

fn message(n: usize) -> Message {
    Message::new("billing", "n", &n).unwrap()
}

/// A consumer whose handler answers with `outcome` for the first attempt, and counts its runs.
async fn consume(lab: &Lab, outcome: Outcome) -> (Consumer, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let consumer = lab
        .broker
        .consumer("billing")
        .config(bells_only())
        .fallback(move |delivery| {
            counted.fetch_add(1, Ordering::SeqCst);
            let outcome = if delivery.attempt == 1 { outcome.clone() } else { Outcome::Done };
            async move { Ok(outcome) }
        })
        .start()
        .await
        .unwrap();
    (consumer, runs)
}

#[tokio::test]
async fn a_settle_whose_answer_was_lost_is_neither_doubled_nor_reported_lost() {
    let later = Duration::from_secs(1000);
    for (outcome, statement, settled) in [
        (Outcome::Done, "integration.complete_many(", "status = 'completed' and retry_count = 0"),
        (Outcome::retry_after(later, "not yet"), "integration.settle(", "status = 'scheduled' and retry_count = 1"),
        (Outcome::snooze(later), "integration.settle(", "status = 'scheduled' and retry_count = 0"),
        (Outcome::reject("never"), "integration.settle(", "status = 'failed' and retry_count = 1"),
    ] {
        for cut in [Cut::unanswered(statement), Cut::unsent(statement)] {
            let logs = Logs::capture();
            let lab = Lab::new().await;
            let (consumer, runs) = consume(&lab, outcome.clone()).await;
            lab.proxy.cut(cut);
            lab.broker.producer("shop").publish(&message(1)).await.unwrap();
            lab.proxy.was_cut().await;
            lab.until("it is settled", settled).await;
            consumer.shutdown().await.unwrap();
            assert_eq!(lab.count(&format!("integration.data_staging where attempt = 1 and {settled}")).await, 1);
            assert_eq!(lab.count("integration.audit_log where attempt = 1").await, 1, "one audit row for one settle");
            assert_eq!(runs.load(Ordering::SeqCst), 1);
            assert!(!logs.has("lease was lost"), "{outcome:?} was reported lost");
            assert_eq!(lab.proxy.cancels(), 0);
        }
    }
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_gives_its_messages_back() {
    for cut in [Cut::unanswered("integration.claim("), Cut::unsent("integration.claim(")] {
        let lab = Lab::new().await;
        // There before the consumer: its first claim finds it and is lost.
        lab.broker.producer("shop").publish(&message(1)).await.unwrap();
        lab.proxy.cut(cut);
        let (consumer, runs) = consume(&lab, Outcome::Done).await;
        lab.proxy.was_cut().await;
        lab.until("it is completed", "status = 'completed'").await;
        consumer.shutdown().await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert_eq!(lab.count("integration.data_staging where crash_count > 0 or retry_count > 0").await, 0);
    }
}

#[tokio::test]
async fn a_lost_claim_takes_nothing_from_the_other_consumers_of_its_process() {
    let lab = Lab::new().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (tell, mut told) = seen();
    let held = gate.clone();
    let slow = lab.broker.consumer("shipping").config(bells_only()).fallback(move |delivery| {
        tell.send(delivery.id).unwrap();
        let held = held.clone();
        async move {
            held.acquire().await?.forget();
            Ok(Outcome::Done)
        }
    });
    let slow = slow.start().await.unwrap();
    let running = lab.broker.producer("shop").publish(&Message::new("shipping", "n", &1).unwrap()).await.unwrap();
    assert_eq!(told.next().await, running);
    // Parked, it claims nothing any more: the lock of the session and its latch.
    let parked = "select count(*) = 2 from pg_locks where locktype = 'advisory' \
                  and database = (select oid from pg_database where datname = current_database())";
    until(&lab.client, "the first consumer is parked", parked).await;
    // A second consumer of the same owner, whose first claim is lost.
    plain_insert(&lab.client, "billing", "2").await;
    lab.proxy.cut(Cut::unanswered("integration.claim("));
    let (fast, runs) = consume(&lab, Outcome::Done).await;
    lab.proxy.was_cut().await;
    lab.until("the lost one is completed", "status = 'completed'").await;
    assert_eq!(
        lab.count(&format!("integration.data_staging where id = {running} and status = 'processing' and attempt = 1"))
            .await,
        1
    );
    gate.add_permits(2);
    lab.until("the slow one is completed", &format!("id = {running} and status = 'completed' and attempt = 1")).await;
    for consumer in [slow, fast] {
        consumer.shutdown().await.unwrap();
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

async fn consume_in_tx(lab: &Lab, hold: Option<Duration>) -> Consumer {
    let consumer = lab.broker.consumer("billing").config(ConsumerConfig { hold, ..bells_only() });
    let consumer = consumer.on_tx("probe", |_: i32, _, _| async { Ok(Outcome::Done) }.boxed());
    let consumer = consumer.on_tx("n", |_: i32, delivery, tx| {
        async move {
            tx.execute("insert into ledger values ($1, $2)", &[&delivery.id, &delivery.attempt]).await?;
            Ok(Outcome::Done)
        }
        .boxed()
    });
    consumer.start().await.unwrap()
}

#[tokio::test]
async fn effects_happen_once_wherever_their_commit_is_cut() {
    for hold in [None, Some(Duration::from_secs(20))] {
        for (cut, attempt) in [(Cut::unanswered("COMMIT"), 1), (Cut::unsent("COMMIT"), 2)] {
            let logs = Logs::capture();
            let lab = Lab::new().await;
            let prepare =
                "select integration.set_audit_level('all'); update integration.settings set backoff_base_ms = 0";
            lab.client.batch_execute(prepare).await.unwrap();
            let consumer = consume_in_tx(&lab, hold).await;
            let batch = if hold.is_some() { 10 } else { 1 };
            if hold.is_some() {
                until_it_holds(&lab.client).await;
            }
            lab.proxy.cut(cut);
            let messages: Vec<Message> = (0..batch).map(message).collect();
            lab.broker.producer("shop").publish_many(&messages).await.unwrap();
            lab.proxy.was_cut().await;
            let all = format!("select count(*) = {batch} from integration.data_staging where status = 'completed'");
            until(&lab.client, "all are completed", &all).await;
            consumer.shutdown().await.unwrap();
            assert_eq!(lab.count("ledger").await, batch as i64);
            assert_eq!(count(&lab.client, "select count(distinct message_id) from ledger").await, batch as i64);
            // What was held has not been claimed, and is for the first time when it runs again.
            let attempt = if hold.is_none() { attempt } else { 1 };
            assert_eq!(lab.count(&format!("ledger where attempt <> {attempt}")).await, 0);
            assert!(!logs.has("lease was lost"), "reported lost");
            assert_eq!(lab.proxy.cancels(), 0);
        }
    }
}

#[tokio::test]
async fn a_commit_that_is_never_delivered_does_not_hold_its_message_for_ever() {
    let mut lab = Lab::new().await;
    lab.client.batch_execute("update integration.settings set backoff_base_ms = 0").await.unwrap();
    let config = BrokerConfig { statement_within: Duration::from_secs(1), ..Default::default() };
    lab.broker = Broker::with_config(Settings::parse(&lab.proxy.url).unwrap(), config).await.unwrap();
    let consumer = consume_in_tx(&lab, None).await;
    lab.proxy.cut(Cut::Silent(Box::new(|said| said.runs("COMMIT"))));
    lab.broker.producer("shop").publish(&message(1)).await.unwrap();
    lab.proxy.was_cut().await;
    lab.until("it is completed", "status = 'completed' and attempt = 2").await;
    consumer.shutdown().await.unwrap();
    assert_eq!(lab.count("ledger").await, 1);
    assert_eq!(lab.proxy.cancels(), 0);
}

#[tokio::test]
async fn a_redrive_whose_answer_was_lost_happened_once() {
    let lab = Lab::new().await;
    let insert = "insert into integration.data_staging (source_app, target_app, record_type, data, status, retry_count) \
                  values ('shop', 'billing', 'n', '1', 'failed', 4) returning id";
    let id: i64 = lab.client.query_one(insert, &[]).await.unwrap().get(0);
    lab.proxy.cut(Cut::unanswered("integration.redrive_many("));
    let error = lab.broker.operator().redrive(&[id]).await.unwrap_err();
    lab.proxy.was_cut().await;
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
    assert_eq!(lab.broker.operator().redrive(&[id]).await.unwrap(), Vec::<i64>::new());
    assert_eq!(
        lab.count("integration.data_staging where status = 'pending' and redrive_count = 1 and attempt = 1").await,
        1
    );
    assert_eq!(lab.proxy.cancels(), 0);
}

/// From publish to completion the connections are cut before every single message of the server, one after the other.
async fn cut_everywhere(transactional: bool) {
    let mut lab = Lab::new().await;
    lab.client.batch_execute("update integration.settings set backoff_base_ms = 0").await.unwrap();
    let mut cuts = 0;
    loop {
        lab.broker = through(&lab.proxy, BrokerConfig::default()).await;
        let (consumer, runs) = if transactional {
            (consume_in_tx(&lab, None).await, None)
        } else {
            let (consumer, runs) = consume(&lab, Outcome::Done).await;
            (consumer, Some(runs))
        };
        lab.proxy.cut(Cut::Reply(cuts + 1));
        let key = format!("{transactional} {cuts}");
        let id = lab.broker.producer("shop").publish(&message(cuts).dedup_key(&key)).await.unwrap();
        lab.until(&format!("{key} is completed"), &format!("id = {id} and status = 'completed'")).await;
        consumer.shutdown().await.unwrap();
        assert_eq!(lab.count(&format!("integration.data_staging where dedup_key = '{key}'")).await, 1);
        match runs {
            // Cut after it was claimed and before the claim's answer came, it is claimed once more and run once.
            Some(runs) => assert_eq!(runs.load(Ordering::SeqCst), 1, "runs, cut {cuts}"),
            None => {
                assert_eq!(lab.count(&format!("ledger where message_id = {id}")).await, 1, "effects, cut {cuts}")
            }
        }
        if lab.proxy.mend() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "only {cuts} places to cut");
    assert_eq!(lab.proxy.cancels(), 0);
}

#[tokio::test]
async fn effects_happen_once_wherever_their_way_is_cut() {
    cut_everywhere(true).await;
}

#[tokio::test]
async fn a_message_is_handled_once_wherever_its_way_is_cut() {
    cut_everywhere(false).await;
}
