//! A consumer process that is frozen for longer than its lease, and goes on as if nothing had been.

use nix::sys::signal::Signal;

use super::{
    broker,
    child::{self, Process, begun},
};
use crate::support::{Database, count, echo, plain_insert, until_status};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_process_held_is_handled_by_another_and_its_own_word_comes_too_late() {
    let db = Database::new().await;
    let client = db.client().await;
    let (mut process, mut told) = Process::start(&db.url, "billing");
    let id = plain_insert(&client, "billing", child::BLOCK).await;
    begun(&mut told, 1).await;
    process.signal(Signal::SIGSTOP);
    let (consumer, mut handled) = echo(&broker(&db.url).await, "billing").await;
    // It was found out by its silence alone: its session lock is held as before.
    let delivery = handled.next().await;
    assert_eq!((delivery.id, delivery.attempt), (id, 2));
    let completed = until_status(&client, id, "completed").await;
    consumer.shutdown().await.unwrap();
    process.signal(Signal::SIGCONT);
    process.unblock();
    // What it says about the first message comes before it handles another.
    let next = plain_insert(&client, "billing", "1").await;
    begun(&mut told, 1).await;
    until_status(&client, next, "completed").await;
    let after = until_status(&client, id, "completed").await;
    assert_eq!((after.attempt, after.retry_count), (completed.attempt, 0));
    let completions =
        format!("select count(*) from integration.audit_log where action = 'completed' and staging_id = {id}");
    assert_eq!(count(&client, &completions).await, 1);
}
