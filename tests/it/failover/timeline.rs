//! Another timeline: ids are given out far ahead from then on, set once by whoever meets it first; and what it never heard of
//! is done again.

use doorbell::Broker;
use doorbell_server::Shutdown;
use tokio_postgres::Client;

use super::{Long, all_have_looked_around, broker, child::Process, pair::Pair};
use crate::support::{Database, connect, count, echo, message, until, until_so, until_status};

const AHEAD: i64 = 1_000_000;
const SAID: &str = "the server is on another timeline";
const LAST_ID: &str = "select pg_sequence_last_value(pg_get_serial_sequence('integration.data_staging', 'id'))";

async fn last_id(client: &Client) -> i64 {
    count(client, LAST_ID).await
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_meet_a_promoted_standby_say_so_once_and_set_its_ids_ahead_once() {
    let mut pair = Pair::start().await;
    let old = Broker::connect(&pair.primary.connection_string("postgres")).await.unwrap();
    old.migrate().await.unwrap();
    let brokers = [broker(&pair.url()).await, broker(&pair.url()).await, broker(&pair.url()).await];
    let mut consumers = Vec::new();
    for broker in &brokers {
        consumers.push(echo(broker, "billing").await.0);
    }
    let (process, mut lines) = Process::start(&pair.url(), "shipping");
    let all = brokers.len() + 1;
    old.producer("shop").publish(&message("billing", 1)).await.unwrap();
    let client = pair.client_of_primary().await;
    until(&client, "all are there", &format!("select count(*) = {all} from integration.processes")).await;
    all_have_looked_around(&client, all).await;
    pair.stop_replicating().await;
    pair.fail_over().await;

    let client = pair.client_of_standby().await;
    until(&client, "ids are given out far ahead", &format!("select ({LAST_ID}) > {AHEAD}")).await;
    all_have_looked_around(&client, all).await;
    let last = last_id(&client).await;
    assert!(last < 2 * AHEAD, "{last}");
    while !lines.next().await.contains(SAID) {}
    // The same timeline, met anew.
    pair.standby.restart(Shutdown::Fast).await.unwrap();
    let client = connect(&pair.standby.connection_string("postgres")).await;
    all_have_looked_around(&client, all).await;
    assert_eq!(last_id(&client).await, last);
    process.kill();
    assert_eq!(lines.rest().filter(|line| line.contains(SAID)).count(), 0, "it is no news any more");
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_look_at_once_one_sets_the_ids_ahead() {
    let db = Database::new().await;
    let client = db.client().await;
    let producer = db.broker().await.producer("shop");
    let id = producer.publish(&message("billing", 1)).await.unwrap();
    client.batch_execute("update integration.contact set timeline = 'another'").await.unwrap();
    let looks: Vec<_> = futures::future::join_all((0..8).map(|_| db.client()))
        .await
        .into_iter()
        .map(|client| async move { client.batch_execute("select integration.keep_contact()").await.unwrap() })
        .collect();
    futures::future::join_all(looks).await;
    client.batch_execute("select integration.keep_contact()").await.unwrap();
    let next = producer.publish(&message("billing", 2)).await.unwrap();
    assert_eq!(next, id + 1 + AHEAD + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_completion_the_new_primary_never_got_is_handled_again() {
    let mut pair = Pair::start().await;
    let old = Broker::connect(&pair.primary.connection_string("postgres")).await.unwrap();
    old.migrate().await.unwrap();
    let long = Long::default();
    let consumer = long.consumer(&broker(&pair.url()).await, "billing").await;
    let id = old.producer("shop").publish(&message("billing", 1)).await.unwrap();
    until_so("its handler runs", || long.begun() == 1).await;
    // The standby knows that it was claimed, and by whom.
    pair.stop_replicating().await;
    long.let_go();
    until_status(&pair.client_of_primary().await, id, "completed").await;
    pair.fail_over().await;
    let completed = until_status(&pair.client_of_standby().await, id, "completed").await;
    assert_eq!((completed.attempt, completed.retry_count, completed.crash_count), (2, 0, 0));
    assert_eq!(long.begun(), 2);
    consumer.shutdown().await.unwrap();
}
