//! Handlers that block every thread of their process's runtime for longer than its lease.

use super::{
    broker,
    child::{self, Process, begun},
    pace,
};
use crate::support::{Database, echo, plain_insert, until_status};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_handlers_block_all_its_threads_keeps_its_lease_and_says_so() {
    let db = Database::new().await;
    let client = db.client().await;
    let (mut process, mut told) = Process::start(&db.url, "billing");
    let ids =
        [plain_insert(&client, "billing", child::BLOCK).await, plain_insert(&client, "billing", child::BLOCK).await];
    begun(&mut told, 2).await;
    let (rescuer, mut handled) = echo(&broker(&db.url).await, "billing").await;
    pace::outlast_the_lease().await;
    while !told.next().await.contains("handlers block the runtime") {}
    process.unblock();
    process.unblock();
    while !told.next().await.contains("the runtime runs tasks again") {}
    for id in ids {
        let completed = until_status(&client, id, "completed").await;
        assert_eq!((completed.attempt, completed.crash_count), (1, 0));
    }
    assert_eq!(handled.rest().count(), 0);
    rescuer.shutdown().await.unwrap();
}
