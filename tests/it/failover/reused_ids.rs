//! An asynchronous failover that is faster than the lease: the new primary knows nothing of the last messages, and gives
//! their ids to others, while their handlers are still running here.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorbell::{Broker, ConsumerBuilder, ConsumerConfig, Delivery, Message, MessageId, Outcome};
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio_postgres::Client;

use super::pair::Pair;
use crate::support::{HOUR, connect, count, until, until_so, until_status};

/// Messages that the old primary has completed and the new one never got.
const AHEAD: usize = 40;
/// Messages that the old primary has and the new one never got.
const OLD: usize = 10;
/// Handlers of them that are under way; the other messages wait in the process.
const RUNNING: usize = 4;

const COMPLETED: &str = "select count(*) from integration.data_staging where status = 'completed'";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Leased,
    Transactional,
    Held,
}

impl Mode {
    fn config(self) -> ConsumerConfig {
        let config = ConsumerConfig { sweep: HOUR, handler_timeout: None, ..Default::default() };
        match self {
            Self::Leased => ConsumerConfig { concurrency: OLD * 2, prefetch: Some(0), hold: None, ..config },
            // What waits in the process begins on the new primary.
            Self::Transactional => {
                ConsumerConfig { concurrency: RUNNING, prefetch: Some(AHEAD * 4), hold: None, ..config }
            }
            Self::Held => ConsumerConfig { concurrency: RUNNING, hold: Some(Duration::from_secs(60)), ..config },
        }
    }

    fn consumer(self, broker: &Broker, handlers: &Handlers) -> ConsumerBuilder {
        let consumer = broker.consumer("billing").config(self.config());
        if self == Self::Leased { handlers.leased(consumer) } else { handlers.transactional(consumer) }
    }
}

/// What handlers were given, and the gate in front of the old messages' end.
#[derive(Clone)]
struct Handlers {
    ended: Arc<Mutex<BTreeSet<String>>>,
    waiting: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Handlers {
    fn new() -> Self {
        Self { ended: Arc::default(), waiting: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    async fn wait(&self, name: &str) {
        if name.starts_with("old") {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let _open = self.gate.acquire().await.expect("it is never closed");
        }
    }

    fn ended(&self, name: &str) {
        self.ended.lock().expect("no panic holds it").insert(name.to_owned());
    }

    fn leased(&self, consumer: ConsumerBuilder) -> ConsumerBuilder {
        let handlers = self.clone();
        consumer.on("name", move |name: String, _: Delivery| {
            let handlers = handlers.clone();
            async move {
                handlers.wait(&name).await;
                handlers.ended(&name);
                Ok(Outcome::Done)
            }
        })
    }

    fn transactional(&self, consumer: ConsumerBuilder) -> ConsumerBuilder {
        let handlers = self.clone();
        consumer.on_tx("name", move |name: String, delivery, tx| {
            let handlers = handlers.clone();
            async move {
                handlers.wait(&name).await;
                tx.execute("insert into effect (id, name) values ($1, $2)", &[&delivery.id, &name]).await?;
                handlers.ended(&name);
                Ok(Outcome::Done)
            }
            .boxed()
        })
    }
}

/// Publishes one message with its name as the payload.
async fn publish(broker: &Broker, name: &str) -> MessageId {
    broker.producer("shop").publish(&Message::new("billing", "name", &name).unwrap()).await.unwrap()
}

/// Everything that the new primary acknowledged is completed because a handler ran for that very message; nothing else is.
async fn only_who_was_handled_is_completed(mode: Mode) {
    let mut pair = Pair::start().await;
    let old = Broker::connect(&pair.primary.connection_string("postgres")).await.unwrap();
    old.migrate().await.unwrap();
    let client = pair.client_of_primary().await;
    client.batch_execute("create table effect (id bigint not null, name text not null)").await.unwrap();
    client.batch_execute("select integration.set_audit_level('all')").await.unwrap();
    let handlers = Handlers::new();
    // With the usual lease of 15 s, which the failover does not outlast.
    let consumer = mode.consumer(&Broker::connect(&pair.url()).await.unwrap(), &handlers).start().await.unwrap();
    warm_up(mode, &old, &client).await;
    pair.stop_replicating().await;

    let completed = count(&client, COMPLETED).await;
    for n in 0..AHEAD {
        publish(&old, &format!("ahead-{n}")).await;
    }
    until(&client, "they are completed", &format!("select ({COMPLETED}) = {completed} + {AHEAD}")).await;
    let mut last = 0;
    for n in 0..OLD {
        last = publish(&old, &format!("old-{n}")).await;
    }
    if mode != Mode::Held {
        let all_old = format!("select count(*) = {OLD} from integration.data_staging where status = 'processing'");
        until(&client, "they are in the process's hands", &all_old).await;
    }
    until_so("a handler of them runs", || handlers.waiting.load(Ordering::SeqCst) > 0).await;
    pair.fail_over().await;

    let url = pair.standby.connection_string("postgres");
    let (new, client) = (Broker::connect(&url).await.unwrap(), connect(&url).await);
    // Somebody has met the new timeline and set the ids ahead. Publishers may have been faster.
    let ids = "pg_get_serial_sequence('integration.data_staging', 'id')";
    until(&client, "ids are given out far ahead", &format!("select nextval({ids}) > 1000000")).await;
    client.batch_execute(&format!("select setval({ids}, {})", last - OLD as i64)).await.unwrap();
    let mut published = Vec::new();
    loop {
        let name = format!("new-{}", published.len());
        let id = publish(&new, &name).await;
        published.push((id, name));
        if id > last {
            break;
        }
    }
    let reused = published.iter().filter(|(id, _)| *id > last - OLD as i64).count();
    assert!(reused >= OLD, "void: {reused} ids were given a second time");
    // What is held in a transaction is not to be seen from here.
    if mode != Mode::Held {
        let taken = "select count(*) = 0 from integration.data_staging where status = 'pending'";
        until(&client, "all were claimed", taken).await;
    }
    handlers.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    let rest =
        "select count(*) = 0 from integration.data_staging where status in ('pending', 'scheduled', 'processing')";
    until(&client, "all have come to rest", rest).await;
    consumer.shutdown().await.unwrap();

    let ended = handlers.ended.lock().expect("no panic holds it").clone();
    let unhandled: Vec<_> = published.iter().filter(|(_, name)| !ended.contains(name)).collect();
    assert!(unhandled.is_empty(), "acknowledged on the new primary, completed there, never handled: {unhandled:?}");
    let strangers =
        "select count(*) from effect e join integration.data_staging d using (id) where d.data #>> '{}' <> e.name";
    assert_eq!(count(&client, strangers).await, 0, "completions with a stranger's effect");
    if mode != Mode::Leased {
        let effects = "select count(*) from integration.data_staging d where status = 'completed' \
            and (select count(*) from effect e where e.id = d.id and e.name = d.data #>> '{}') <> 1";
        assert_eq!(count(&client, effects).await, 0, "completions without exactly one effect of their own");
    }
    burnt_nothing(&client).await;
}

/// No message of the new primary paid for what happened to another.
async fn burnt_nothing(client: &Client) {
    let rows = client
        .query(
            "select format('%s %s retry_count %s crash_count %s %s', data, status, retry_count, crash_count, error_message)
               from integration.data_staging
              where data #>> '{}' like 'new-%' and not (status = 'completed' and retry_count = 0 and crash_count = 0)",
            &[],
        )
        .await
        .unwrap();
    let burnt: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(burnt.is_empty(), "messages of the new primary paid for others: {burnt:?}");
}

/// Until messages are consumed in this mode: a process leases at first.
async fn warm_up(mode: Mode, old: &Broker, client: &Client) {
    for n in 0.. {
        let id = publish(old, &format!("warm-{n}")).await;
        until_status(client, id, "completed").await;
        let leased =
            format!("select count(*) from integration.audit_log where action = 'claimed' and staging_id = {id}");
        if mode != Mode::Held || count(client, &leased).await == 0 {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leased_messages_are_not_completed_by_handlers_of_others_that_had_their_ids() {
    only_who_was_handled_is_completed(Mode::Leased).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactional_handlers_complete_no_other_message_that_has_their_id() {
    only_who_was_handled_is_completed(Mode::Transactional).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_in_transactions_complete_no_other_message_that_has_their_id() {
    only_who_was_handled_is_completed(Mode::Held).await;
}
