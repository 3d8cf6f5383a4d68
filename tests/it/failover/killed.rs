//! Consumers that really die: that outages are not counted as deaths must not hide these.

use super::{
    broker,
    child::{self, Process, begun},
    pace, server,
};
use crate::{
    claim::rates,
    support::{Database, bells_only, connect, count, echo, plain_insert, row, until, until_count, until_status},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_while_the_server_is_away_is_rescued_from() {
    for longer_than_the_lease in [false, true] {
        let (mut server, url) = server().await;
        let client = connect(&url).await;
        let (process, mut told) = Process::start(&url, "billing");
        let id = plain_insert(&client, "billing", child::HANG).await;
        begun(&mut told, 1).await;
        client.batch_execute("checkpoint").await.unwrap();
        let (consumer, mut handled) = echo(&broker(&url).await, "billing").await;
        server.kill().await.unwrap();
        process.kill();
        if longer_than_the_lease {
            pace::outlast_the_lease().await;
        }
        server.start_again().await.unwrap();
        assert_eq!(handled.next().await.id, id);
        let completed = until_status(&connect(&url).await, id, "completed").await;
        assert_eq!((completed.attempt, completed.retry_count), (2, 0));
        consumer.shutdown().await.unwrap();
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_consumers_are_killed_is_a_suspect_and_fails_at_the_third_death() {
    let db = Database::new().await;
    let client = db.client().await;
    // Rescues, and consumes something else.
    let survivor =
        broker(&db.url).await.consumer("other").config(bells_only()).fallback(|_| async { unreachable!("no message") });
    let survivor = survivor.start().await.unwrap();
    let id = plain_insert(&client, "billing", child::HANG).await;
    for death in 1..=3 {
        let (process, mut told) = Process::start(&db.url, "billing");
        begun(&mut told, 1).await;
        process.kill();
        let status = if death < 3 { "pending" } else { "failed" };
        assert_eq!(until_status(&client, id, status).await.crash_count, death);
    }
    assert_eq!(row(&client, id).await.reason(), "3 consumers died one after the other while handling this message");
    assert_eq!(count(&client, "select count(*) from integration.audit_log where action = 'completed'").await, 0);
    survivor.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_rate_allows_begin_in_any_such_time_whoever_is_killed_in_between() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("select integration.set_audit_level('all')").await.unwrap();
    rates::limited(&db, 6, "300 ms").await;
    let mut processes: Vec<_> = (0..3).map(|_| Process::start(&db.url, "billing")).collect();
    until(&client, "all consume", "select count(*) = 3 from integration.processes").await;
    rates::publish(&db, 30).await;
    let claimed = "from integration.audit_log where action = 'claimed'";
    for claims in [6, 15] {
        until(&client, "some are claimed", &format!("select count(*) >= {claims} {claimed}")).await;
        processes.remove(0).0.kill();
    }
    until_count(&client, "completed", 30).await;
    let most = rates::most_within(&db, "299 ms").await;
    assert!((1..=6).contains(&most), "{most} of {}", count(&client, &format!("select count(*) {claimed}")).await);
}
